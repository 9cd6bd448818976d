"""`chorus fetch`: from a mirror over HTTP and from a folder, in the forms that the sets are published in."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from publisher import Publisher, publishing

from chorus.cli.main import main
from chorus.evaluation.suite import load_suite
from chorus.problems.fetch.catalogue import load_catalogue
from chorus.problems.sources import load_problems
from chorus.protocol.config.load import load_config
from chorus.protocol.runtime.exits import CANNOT_GO_ON

ROOT = Path(__file__).parents[3]
CATALOGUE = """
title = "a small one"

[[set]]
name = "whole"
title = "everything, with solutions"
licence = "MIT"
rows = 7
kept = false
[[set.mirror]]
url = "{url}/whole.jsonl"
columns = "preset=math"

[[set]]
name = "train"
title = "to train on"
licence = "MIT, too"
rows = 4
usable = 3
solutions = "whole"
[[set.mirror]]
url = "{url}/away.parquet"
columns = "preset=verl&domain="
[[set.mirror]]
url = "{url}/train.parquet"
columns = "preset=verl&domain="
sha256 = "{train}"

[[set]]
name = "eval"
title = "to measure on"
licence = "CC0"
rows = 1
[[set.mirror]]
url = "{url}/eval.arrow"
columns = "answer=answer|several?"

[[set]]
name = "valid"
title = "what is left"
licence = "MIT"
[set.rest]
of = "whole"
without = ["train", "eval"]
level = 3
rows = 2
"""
WORDS = ["apple", "boat", "crow", "door", "eel", "fig", "gate"]


def problem(n: int) -> str:
    return f"A {WORDS[n]} stands beside {n + 2} others of its kind; how many {WORDS[n]}s are there in all?"


def whole() -> bytes:
    """Seven of MATH: number 2 is boxed without braces, 3 has no box; 6 is easy."""
    boxes = [r"\boxed{3}", r"\boxed{4}", r"\boxed 5", "nothing", r"\boxed{7}", r"\boxed{8}", r"\boxed{9}"]
    rows = [
        {
            "problem": problem(n),
            "solution": f"It is ${box}$.",
            "answer": str(n + 3),
            "level": "Level 1" if n == 6 else "Level 4",
            "subject": "Algebra",
        }
        for n, box in enumerate(boxes)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def train(to: Path) -> bytes:
    """Problems 0 to 3 as verl's rows; the gold of 2 was not read, 3 has none."""
    rows = [
        {
            "data_source": "simplelr",
            "prompt": [
                {"role": "system", "content": "You help."},
                {"role": "user", "content": f"{problem(n)}\nPlease reason step by step, and box it in \\boxed{{}}."},
            ],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": gold},
        }
        for n, gold in enumerate(["3", "4", "None", ""])
    ]
    pq.write_table(pa.Table.from_pylist(rows), to)
    return to.read_bytes()


def evaluation(to: Path) -> bytes:
    """Problem 4 as `datasets` saves it, with two golds."""
    table = pa.Table.from_pylist([{"problem": problem(4).replace("  ", " ").upper(), "answer": ["7", "7.0"]}])
    with pa.OSFile(str(to), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table)
    return to.read_bytes()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.chdir(tmp_path)
    files = {
        "whole.jsonl": whole(),
        "train.parquet": train(tmp_path / "t.parquet"),
        "eval.arrow": evaluation(tmp_path / "e.arrow"),
    }
    with publishing(Publisher(files)) as publisher:
        checksum = hashlib.sha256(files["train.parquet"]).hexdigest()
        text = CATALOGUE.format(url=publisher.url, train=checksum)
        (tmp_path / "mine.toml").write_text(text)
        yield publisher


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def test_all_sets_come_as_problems_with_a_lock_and_a_licence_each(
    published: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "mine.toml"]) == 0
    said = capsys.readouterr()
    assert said.out == "data/mine/README.md\n"
    assert f"train: {published.url}/away.parquet: it answers 404" in said.err  # and the next mirror had it
    assert "train: 3 problems of 4 rows (left out: 1 no answer)" in said.err
    folder = tmp_path / "data" / "mine"
    trained = rows(folder / "train.jsonl.gz")
    assert [(row["problem"], row["answer"]) for row in trained] == [
        (problem(0), "3"),
        (problem(1), "4"),
        (problem(2), "5"),
    ]
    assert trained[2] | {"id": ""} == {
        **{"id": "", "problem": problem(2), "answer": "5", "level": 4, "domain": "Algebra", "source": "train"},
        "solution": r"It is $\boxed 5$.",
    }
    assert [row["answers"] for row in rows(folder / "eval.jsonl.gz")] == [["7", "7.0"]]
    # Of the seven, 0 to 2 are trained on, 4 is measured on (in other letters); 3 and 5 are of level 4, 6 of level 1.
    assert {row["problem"] for row in rows(folder / "valid.jsonl.gz")} == {problem(3), problem(5)}
    assert len({p.id for p in load_problems(str(folder / "train.jsonl.gz"))}) == 3
    lock = json.loads((folder / "fetched.json").read_text())
    assert lock["train"]["sha256"] == hashlib.sha256(published.files["train.parquet"]).hexdigest()
    assert lock["train"]["checksum_was_known"]
    assert lock["eval"]["sha256"] == hashlib.sha256(published.files["eval.arrow"]).hexdigest()
    assert not lock["eval"]["checksum_was_known"]
    readme = (folder / "README.md").read_text()
    assert "| `train.jsonl.gz` | 3 of 4 rows | to train on | MIT, too | " in readme
    assert "| CC0 | " in readme


def test_what_is_there_is_not_fetched_again(published: Publisher) -> None:
    assert main(["fetch", "mine.toml", "--to", "d"]) == 0
    published.asked.clear()
    assert main(["fetch", "mine.toml", "--to", "d"]) == 0
    assert published.asked == []


def test_a_download_that_broke_off_goes_on_where_it_stopped(published: Publisher, tmp_path: Path) -> None:
    for path in ("whole.jsonl", "train.parquet"):
        published.breaks[path] = 100
    assert main(["fetch", "mine.toml", "--to", "d"]) == 0
    assert ("whole.jsonl", 100) in published.asked
    assert ("train.parquet", 100) in published.asked
    assert (tmp_path / "d/raw/train.parquet").read_bytes() == published.files["train.parquet"]


def test_a_command_that_was_killed_goes_on_with_what_it_had(
    published: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.breaks["whole.jsonl"] = 100
    monkeypatch.setattr("chorus.problems.fetch.download.TRIES", 1)
    assert main(["fetch", "mine.toml", "--to", "d"]) == CANNOT_GO_ON
    assert not (tmp_path / "d/raw/whole.jsonl").exists()
    assert main(["fetch", "mine.toml", "--to", "d"]) == 0
    assert [first for path, first in published.asked if path == "whole.jsonl"] == [0, 100]
    assert (tmp_path / "d/raw/whole.jsonl").read_bytes() == published.files["whole.jsonl"]


def test_a_server_without_ranges_sends_it_anew(published: Publisher, tmp_path: Path) -> None:
    published.knows_ranges = False
    published.breaks["whole.jsonl"] = 100
    assert main(["fetch", "mine.toml", "--to", "d"]) == 0
    assert (tmp_path / "d/raw/whole.jsonl").read_bytes() == published.files["whole.jsonl"]


def test_a_wrong_checksum_is_refused_and_nothing_of_it_stays(
    published: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published.files["train.parquet"] = published.files["train.parquet"] + b"more"
    assert main(["fetch", "mine.toml", "--to", "d"]) == CANNOT_GO_ON
    last = capsys.readouterr().err.splitlines()[-1]
    assert "train: no place has it" in last
    assert "another file than was meant" in last
    assert not list((tmp_path / "d/raw").glob("*train.parquet*"))
    assert not (tmp_path / "d/train.jsonl.gz").exists()


def test_what_had_no_checksum_is_held_to_its_first_one(published: Publisher, tmp_path: Path) -> None:
    assert main(["fetch", "mine.toml", "--to", "d"]) == 0
    (tmp_path / "d/eval.jsonl.gz").unlink()
    published.files["eval.arrow"] = evaluation(tmp_path / "e.arrow") + b" "
    assert main(["fetch", "mine.toml", "--to", "d"]) == CANNOT_GO_ON


def test_a_mirror_with_another_number_of_problems_is_refused(
    published: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    published.files["whole.jsonl"] += published.files["whole.jsonl"].splitlines(keepends=True)[0]
    assert main(["fetch", "mine.toml", "--to", "d"]) == CANNOT_GO_ON
    assert "has 8 rows, where 7 are published" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("counted", "status"), [(2, 0), (4, CANNOT_GO_ON)])
def test_usable_problems_that_were_lost_are_refused_and_more_than_were_counted_are_said(
    published: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str], counted: int, status: int
) -> None:
    text = (tmp_path / "mine.toml").read_text().replace("usable = 3", f"usable = {counted}")
    (tmp_path / "mine.toml").write_text(text)
    assert main(["fetch", "mine.toml", "--to", "d", "--only", "train"]) == status
    assert f"3 usable problems, where {counted} were counted" in capsys.readouterr().err


def test_a_file_that_was_changed_here_is_named(
    published: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "mine.toml", "--to", "d"]) == 0
    (tmp_path / "d/eval.jsonl.gz").write_bytes(b"")
    assert main(["fetch", "mine.toml", "--to", "d"]) == CANNOT_GO_ON
    assert "d/eval.jsonl.gz: is not the file that was fetched" in capsys.readouterr().err


def test_a_closed_network_makes_the_same_files_of_a_folder_and_of_a_url(published: Publisher, tmp_path: Path) -> None:
    assert main(["fetch", "mine.toml", "--to", "d"]) == 0
    published.asked.clear()
    assert main(["fetch", "mine.toml", "--to", "e", "--from", "d/raw"]) == 0
    assert published.asked == []
    published.files |= {f"inside/{path.name}": path.read_bytes() for path in (tmp_path / "d/raw").iterdir()}
    assert main(["fetch", "mine.toml", "--to", "f", "--from", f"{published.url}/inside/"]) == 0
    assert {path.partition("/")[0] for path, _ in published.asked} == {"inside"}
    for name in ("train", "eval", "valid"):
        made = {(tmp_path / to / f"{name}.jsonl.gz").read_bytes() for to in ("d", "e", "f")}
        assert len(made) == 1


def test_some_sets_come_with_what_they_are_made_of(published: Publisher, tmp_path: Path) -> None:
    assert main(["fetch", "mine.toml", "--to", "d", "--only", "train"]) == 0
    assert {path for path, _ in published.asked} == {"whole.jsonl", "away.parquet", "train.parquet"}
    assert sorted(path.name for path in (tmp_path / "d").glob("*.gz")) == ["train.jsonl.gz"]


def test_names_that_nobody_knows_are_refused(published: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "maths"]) == CANNOT_GO_ON
    assert "nothing is fetched under this name; give one of math" in capsys.readouterr().err
    assert main(["fetch", "mine.toml", "--only", "train,exam"]) == CANNOT_GO_ON
    assert "--only exam: not in this catalogue; give some of train, eval, valid" in capsys.readouterr().err


def test_a_missing_file_of_a_recipe_names_the_command_that_brings_it() -> None:
    with pytest.raises(ValueError, match=r"no such file; give the command `chorus fetch math`, which brings it"):
        load_problems("data/math/eval_aime24.jsonl.gz")
    with pytest.raises(ValueError, match=r"give the command `chorus fetch math --to elsewhere`, which brings it"):
        load_problems("elsewhere/train_math_level3to5.jsonl.gz?rows=3")


def test_the_list_names_every_file_checksum_and_address(
    published: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "math", "--list"]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _, _ in listed if name.startswith("train")][:1] == ["train_math_level3to5.parquet"]
    assert all(address.startswith("https://") for _, _, address in listed)
    assert published.asked == []


def test_the_published_sets_are_the_ones_that_recipe_and_suite_name() -> None:
    catalogue = load_catalogue("math")
    sizes = {each.name: each.rows for each in catalogue.set if each.kept}
    assert sizes["train_math_level3to5"] == 8523
    assert {b.file: b.problems for b in load_suite("math").benchmark} == {
        f"{name}.jsonl.gz": rows for name, rows in sizes.items() if name.startswith("eval_")
    }
    files = {f"data/math/{each.file}" for each in catalogue.set if each.kept}
    for recipe in sorted((ROOT / "recipes").glob("qwen2.5-math-1.5b*.toml")):
        problems = load_config(recipe, environment={}).problems
        assert {*problems.train, *problems.heldout, *problems.validation} <= files, recipe.name
    assert all(len(each.mirror) >= 2 for each in catalogue.set if each.rest is None)
    assert all(m.revision for each in catalogue.set for m in each.mirror)
