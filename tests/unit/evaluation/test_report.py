"""Runs and evaluations side by side: who is grouped, what is drawn, what is marked, and that nothing escapes."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from evaluating import spec

from chorus.cli.main import main
from chorus.evaluation.report.plots import COLOURS, band, curves, smoothed
from chorus.evaluation.report.runs import arms_of, read_run
from chorus.protocol.runtime.exits import CANNOT_GO_ON

TAGS = set("html head meta title style body h1 h2 div table thead tbody tr th td p figure img figcaption".split())  # noqa: SIM905
HOSTILE = "<script>alert(1)</script>|$x_{$ _*`[a](http://evil.example)"


def make_run(folder: Path, seed: int, lr: float = 1e-3, steps: int = 4, name: str = "demo", **files: Any) -> Path:
    folder.mkdir(parents=True)
    config = {
        "run": {"seed": seed, "name": name, "steps": steps},
        "learner": {"lr": lr},
        "redis": {"url": f"redis://127.0.0.1:{7000 + seed}/0"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    part = {"accuracy": 0.25, "format": 1.0, "entropy": 0.2, "response_tokens_mean": 9.0, "truncated": 0.0}
    records = [
        {"step": step, "seconds": 1.0, "reward": seed + step, "by_template": {"abel": part, HOSTILE: part}, **part}
        for step in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    for file, value in files.items():
        text = "".join(json.dumps(v) + "\n" for v in value) if isinstance(value, list) else json.dumps(value)
        (folder / f"{file}.json{'l' * isinstance(value, list)}").write_text(text)
    return folder


def evaluation(folder: Path, step: int | None, accuracy: float, **changes: Any) -> Path:
    names = ["aime24", "amc", "math500", "minerva", "olympiad"]
    figures = {"accuracy": accuracy, "interval": [accuracy - 0.01, accuracy + 0.01]}
    part = {"title": "B", "problems": 9, "expected": 9, "ungraded": 0, "runs": [accuracy] * 2, **figures}
    what = spec(problems=dict.fromkeys(names, "d"), titles={n: n for n in names}, step=step, **changes)
    folder.mkdir(parents=True)
    summary = {"spec": what.model_dump(), "benchmarks": dict.fromkeys(names, part), "macro": figures, "micro": figures}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def report(tmp_path: Path, *arguments: Path | str) -> tuple[str, str]:
    out = tmp_path / "out"
    assert main(["report", *map(str, arguments), "--out", str(out)]) == 0
    return (out / "report.html").read_text(), (out / "report.md").read_text()


def test_runs_of_one_recipe_are_one_arm_whatever_their_seed_and_addresses(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"r{k}", seed, lr) for k, (seed, lr) in enumerate([(0, 1e-3), (0, 2e-3), (1, 1e-3)])]
    arms = arms_of([read_run(r) for r in runs])
    assert [[run.name for run in arm.runs] for arm in arms] == [["r0", "r2"], ["r1"]]
    assert [arm.label for arm in arms] == ["demo 1 (learner.lr 0.001)", "demo 2 (learner.lr 0.002)"]


def test_a_band_reaches_over_the_steps_that_all_runs_have(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / f"r{seed}", seed, steps=3 + seed)) for seed in (0, 2)]
    points = band([smoothed("reward")(run) for run in runs])
    assert points == [(1, 2.0, 1, 3), (2, 3.0, 2, 4), (3, 4.0, 3, 5)]


DRAWN = {  # panel, and its figure at steps 1 to 4 of seed 0; seed 2 has twice as much
    "Entropy of the policy [nats a token]": ("entropy", [0.9, 0.5, 0.4, 0.1]),
    "Answer length [tokens]": ("response_tokens_mean", [10.0, 40.0, 30.0, 90.0]),
    "Staleness, mean [steps]": ("staleness_mean", [0.0, 1.5, 1.0, 2.0]),
}


def drawn(svg: str, title: str) -> tuple[list[float], list[float]]:
    """Heights [points from above] of a panel's line and of its band's outline, of the first arm; none: not there."""
    (panel,) = (part for part in svg.split('<g id="axes_') if f"<!-- {title} -->" in part)
    line = re.search(rf'<path d="([^"]+)"[^>]*style="fill: none; stroke: {COLOURS[0]}', panel)
    _, _, collection = panel.partition("PolyCollection_")  # its path is counted from the y where it is used
    outline = re.search(r'<path[^>]* d="([^"]+)".*?<use [^>]*y="([^"]+)"', collection, re.DOTALL)
    return heights(line[1], 0.0) if line else [], heights(outline[1], float(outline[2])) if outline else []


def heights(path: str, start: float) -> list[float]:
    return [start + float(y) for y in re.findall(r"[ML] \S+ (\S+)", path)]


@pytest.mark.parametrize("title", DRAWN)
def test_a_panel_draws_its_figure_and_two_seeds_give_it_a_band(tmp_path: Path, title: str) -> None:
    runs = []
    for seed in (0, 2):
        records = [
            {"step": k + 1} | {key: (1 + seed / 2) * values[k] for key, values in DRAWN.values()} for k in range(4)
        ]
        runs.append(read_run(make_run(tmp_path / f"r{seed}", seed, metrics=records)))
    values = DRAWN[title][1]

    line, outline = drawn(curves(arms_of(runs[:1])), title)
    assert shape(line) == pytest.approx(shape(values), abs=1e-3)
    assert outline == [], "one run has no band"

    line, outline = drawn(curves(arms_of(runs)), title)
    assert shape(line) == pytest.approx(shape(values), abs=1e-3)
    mean = [1.5 * v for v in values]
    points = (line[-1] - line[0]) / (mean[-1] - mean[0])
    reached = [mean[0] + (y - line[0]) / points for y in (max(outline), min(outline))]
    assert reached == pytest.approx([min(values), 2 * max(values)], abs=1e-3 * max(values))


def shape(values: list[float]) -> list[float]:
    """Where each value lies on the way from the first to the last."""
    return [(v - values[0]) / (values[-1] - values[0]) for v in values]


def test_a_page_holds_everything_it_shows_and_asks_nobody(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / HOSTILE.replace("/", "∕"), 0, name=HOSTILE), make_run(tmp_path / "r1", 1, 2e-3)]
    page, text = report(tmp_path, *runs)

    tags: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs)))

    Reader().feed(page)
    assert {tag for tag, _ in tags} <= TAGS
    sources = [value or "" for _, attrs in tags for key, value in attrs.items() if key in ("src", "href")]
    assert len(sources) == 2
    for source in sources:
        kind, _, data = source.partition(";base64,")
        assert kind == "data:image/svg+xml"
        svg = base64.b64decode(data).decode()
        assert svg.lstrip().startswith("<?xml")
        assert not re.search(r"<script|(?:href|src)=\"http", svg)
    assert "default-src 'none'" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in text
    assert r"\[a\](http" in text  # no link
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


def test_last_selected_and_best_on_test_are_named_for_what_they_are(tmp_path: Path) -> None:
    validations = [{"step": s, "accuracy": a} for s, a in ((2, 0.8), (3, 0.6), (4, 0.7))]
    run = make_run(tmp_path / "r0", 0, validation=validations, selected={"step": 2})
    for step, accuracy in ((0, 0.1), (2, 0.3), (3, 0.5), (4, 0.4)):
        evaluation(run / "evals" / f"math-{step}", step, accuracy, run="r0")
    _, text = report(tmp_path, run)
    lines = {line.split("|")[2].strip(): line for line in text.splitlines() if line.startswith("| r0 | step")}
    assert set(lines) == {
        "step 0: start",
        "step 2: selected on validation",
        "step 3: best of 4 on these very problems: optimistic, not a result",
        "step 4: last",
    }
    assert "0.800 (step 2)" in text
    assert "0.700 (step 4)" in text


def test_of_many_checkpoints_those_that_are_something_have_rows_and_the_picture_has_all(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r0", 0, steps=20, selected={"step": 7})
    for step in range(1, 21):
        evaluation(run / "evals" / f"math-{step:02d}", step, 0.9 if step == 3 else step / 100, run="r0")
    _, text = report(tmp_path, run)
    rows = [
        line.split("|")[2].strip().partition(":")[0] for line in text.splitlines() if line.startswith("| r0 | step")
    ]
    assert rows == ["step 3", "step 7", "step 20"]
    assert "17 more checkpoints were measured; the picture has all of them." in text
    assert (
        "B has 9 problems: one is 11.1 points, and other problems of the kind could have given from 19.0 to 21.0"
        in text
    )
    assert "## Checkpoints on math" in text
    line, outline = drawn((tmp_path / "out" / "checkpoints-1.svg").read_text(), "micro average")
    values = [0.9 if step == 3 else step / 100 for step in range(1, 21)]
    assert shape(line) == pytest.approx(shape(values), abs=1e-3)
    assert outline, "the 95 % intervals are a band"


def test_a_report_tells_what_was_trained_by_its_numbers_and_not_by_its_name_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r0", 0)
    config = json.loads((run / "config.json").read_text())
    numbers = {"name": "dr_grpo", "advantage": "grpo", "loss": "ppo", "clip_low": 0.2, "clip_high": 0.28}
    config["objective"] = numbers | {"aggregation": "token-mean", "proximal": "recompute", "weight": "none"}
    (run / "config.json").write_text(json.dumps(config))
    _, text = report(tmp_path, run)
    assert "| demo | dr\\_grpo | advantage grpo; ppo 0.2/0.28; token-mean; proximal recompute |" in text


def test_the_published_rows_stand_beside_ours_on_the_papers_suite_alone(tmp_path: Path) -> None:
    ours = evaluation(tmp_path / "a", None, 0.3)
    other = evaluation(tmp_path / "b", None, 0.3, suite="competitions25")
    _, text = report(tmp_path, "--eval", ours, other)
    published = (
        r"| DAPO + prompt augmentation, step 2720 † | published | 23.3 | 53.5 | 78.4 | 31.3 | 39.4 | 45.2 | 50.9 |"
    )
    assert text.count(published) == 1
    ours_at, other_at = text.index("## Evaluation on math"), text.index("## Evaluation on competitions25")
    assert ours_at < text.index(published) < other_at
    assert "30.0 (29.0-31.0)" in text


def test_evaluations_under_other_conditions_are_not_put_into_one_table(tmp_path: Path) -> None:
    folders = [evaluation(tmp_path / str(k), None, 0.3, max_tokens=k) for k in (30, 30_000)]
    _, text = report(tmp_path, "--eval", *folders)
    assert text.count("## Evaluation on math") == 2


def test_sampled_evaluations_of_another_top_p_stand_apart_and_say_which(tmp_path: Path) -> None:
    how = {"decoding": "sampled", "n": 32, "temperature": 0.7}
    folders = [evaluation(tmp_path / str(p), None, 0.3, top_p=p, **how) for p in (0.95, 1.0)]
    written = json.loads((folders[1] / "summary.json").read_text())
    del written["spec"]["top_p"]  # from before there was one
    (folders[1] / "summary.json").write_text(json.dumps(written))
    _, text = report(tmp_path, "--eval", *folders)
    assert text.count("## Evaluation on math") == 2
    assert "avg@32 at temperature 0.7, top-p 0.95, template" in text
    assert "avg@32 at temperature 0.7, top-p 1, template" in text


def test_an_evaluation_from_before_a_setting_was_there_stands_beside_those_at_its_default(tmp_path: Path) -> None:
    folders = [evaluation(tmp_path / name, None, 0.3, hint_ratio=0.5) for name in ("old", "new")]
    written = json.loads((folders[0] / "summary.json").read_text())
    del written["spec"]["allow_answer_in_hint"]
    (folders[0] / "summary.json").write_text(json.dumps(written))
    other = evaluation(tmp_path / "other", None, 0.3, hint_ratio=0.5, allow_answer_in_hint=True)
    _, text = report(tmp_path, "--eval", *folders, other)
    assert text.count("## Evaluation on math") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the folder of a run"),
        (["missing"], "there is no config.json of a run in it"),
        (["--eval", "missing"], "there is no summary.json of `chorus eval` in it"),
    ],
)
def test_what_is_no_run_is_refused_with_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *arguments, "--out", str(tmp_path)]) == CANNOT_GO_ON
    assert message in capsys.readouterr().err
