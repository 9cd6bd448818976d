"""A resume over changed data says what came and went."""

from __future__ import annotations

from pathlib import Path

from chorus.protocol.run_folder.files import read_lines
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.problem_set import fingerprint, note_problems

TEN = {f"p{k}": f"digest {k}" for k in range(10)}


def test_the_first_start_writes_the_problems_down_and_a_resume_over_the_same_ones_says_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert note_problems(run, TEN, 0) == ""
    assert note_problems(run, dict(TEN), 5, fingerprint(TEN)) == ""
    assert read_lines(run.problem_changes) == [{"step": 0, "problems": 10, "fingerprint": fingerprint(TEN)}]


def test_what_came_went_and_changed_is_counted_and_the_first_few_are_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    note_problems(run, TEN, 0)
    after = {k: v for k, v in TEN.items() if k not in ("p0", "p1")} | {f"new{k}": "x" for k in range(4)} | {"p9": "y"}
    said = note_problems(run, after, 5, fingerprint(TEN))
    assert said.startswith(
        "problems.train is not what it was up to step 5: 4 came (new0, new1, new2, ...), 2 went (p0, p1), "
        "1 changed (p9); 12 now."
    )
    line = read_lines(run.problem_changes)[-1]
    assert (line["step"], line["problems"], line["came"], line["went"], line["changed"]) == (5, 12, 4, 2, 1)
    assert line["text"] == said
    assert note_problems(run, after, 5, fingerprint(TEN)) == "", "said once"


def test_another_order_is_another_set(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    note_problems(run, TEN, 0)
    assert "the same problems in another order" in note_problems(run, dict(reversed(TEN.items())), 5)


def test_without_the_list_the_checkpoints_fingerprint_still_tells(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    note_problems(run, TEN, 0)
    run.problem_digests.write_bytes(b"cut")
    assert "can't be said" in note_problems(run, {"p0": "x"}, 5, fingerprint(TEN))
    run.problem_digests.unlink()
    assert note_problems(run, TEN, 5, fingerprint(TEN)) == ""
