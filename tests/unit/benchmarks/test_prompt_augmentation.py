"""The experiment's report, from run folders made by hand, and which runs it takes for finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chorus.benchmarks.experiments.prompt_augmentation.__main__ import ARMS, _finished, _measure
from chorus.benchmarks.experiments.prompt_augmentation.report import Experiment, draw, markdown

SUITE = {
    "accuracy": 0.3,
    "greedy": 0.9,
    "format": 0.9,
    "entropy": 0.2,
    "distinct_solutions": 3.0,
    "solution_entropy": 1.0,
}


def point(step: int, accuracy: float) -> dict[str, object]:
    return {"step": step, "fixed": SUITE | {"accuracy": accuracy}, "all": SUITE}


def run(folder: Path, name: str, accuracies: list[float], finished: bool = True) -> Path:
    run_dir = folder / name
    run_dir.mkdir(parents=True)
    records = [
        {
            "step": k,
            "seconds": 45.0,
            "reward": 1.0,
            "accuracy": 0.5,
            "entropy": abs(k - 30) / 100,
            "diversity": {"distinct_solutions": 4, "distinct_2": 0.5},
        }
        for k in range(1, 41)
    ]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (run_dir / "curves.json").write_text(json.dumps([point(20 * (k + 1), a) for k, a in enumerate(accuracies)]))
    if finished:
        (run_dir / "summary.json").write_text(json.dumps({"steps": 40}))
    return run_dir


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "start.json").write_text(json.dumps(point(0, 0.3)))
    return tmp_path


def row(table: str, label: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_table_gives_the_mean_of_the_seeds_and_their_range(folder: Path) -> None:
    runs = {
        13: [run(folder, "a", [0.5, 0.6]), run(folder, "b", [0.5, 0.8])],
        1: [run(folder, "c", [0.6, 0.4]), run(folder, "d", [0.6, 0.5])],
    }
    table = markdown(Experiment(folder, runs, 40))
    assert row(table, "held out, qwen-math: accuracy, sampled") == [
        "0.300",
        "0.700 (0.600-0.800)",
        "0.450 (0.400-0.500)",
    ]
    assert row(table, "held out, qwen-math: best sampled accuracy")[2] == "0.600 (0.600-0.600)"
    assert row(table, "held out, qwen-math: its step") == ["", "40 (40-40)", "20 (20-20)"]
    assert row(table, "hours of training")[1] == "0.500 (0.500-0.500)"
    # Running means over five steps of |k - 30| / 100 are lowest where 28 to 32 are averaged.
    assert row(table, "training: step of the lowest entropy")[1] == "32 (32-32)"
    assert row(table, "training: first step within 0.005 of it")[1] == "31 (31-31)"


def test_a_run_that_has_gone_on_counts_as_far_as_the_steps_asked_for(folder: Path) -> None:
    experiment = Experiment(folder, {13: [run(folder, "a", [0.5, 0.6])]}, 20)
    table = markdown(experiment)
    assert row(table, "held out, qwen-math: accuracy, sampled")[1] == "0.500"
    assert row(table, "training: step of the lowest entropy")[1] == "20"
    assert row(table, "training, last tenth: entropy")[1] == "0.105"
    assert row(table, "hours of training")[1] == "0.250"
    assert experiment.training("reward")(folder / "a")[0] == list(range(1, 21))


def test_training_curves_are_running_means(folder: Path) -> None:
    steps, values = Experiment(folder, {}, 40).training("entropy")(run(folder, "a", [0.5]))
    assert steps[:2] == [1, 2]
    assert values[0] == pytest.approx(0.29)
    assert values[4] == pytest.approx((0.29 + 0.28 + 0.27 + 0.26 + 0.25) / 5)


def test_the_picture_is_drawn_also_while_seeds_are_missing(folder: Path) -> None:
    runs = {13: [run(folder, "a", [0.5, 0.6]), run(folder, "b", [0.5])], 1: [run(folder, "c", [0.6])]}
    picture = draw(Experiment(folder, runs, 40), folder / "picture.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_only_a_run_that_has_all_its_steps_is_skipped(folder: Path) -> None:
    assert _finished(folder, 13, 0, 40) is None
    cut_short = run(folder, "templates-13-seed-0-20260101-000000", [], finished=False)
    assert _finished(folder, 13, 0, 40) is None
    (cut_short / "summary.json").write_text('{"steps": 40}')
    assert _finished(folder, 13, 0, 40) == cut_short
    assert _finished(folder, 13, 0, 41) is None
    assert _finished(folder, 1, 0, 40) is None


def test_only_new_checkpoints_are_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = run(folder, "templates-13-seed-0-20260101-000000", [0.5, 0.6])  # measured: steps 20 and 40
    for step in (40, 60):
        path = run_dir / "checkpoints" / f"step-{step:06d}"
        (path / "huggingface").mkdir(parents=True)
        (path / "manifest.json").write_text(json.dumps({"step": step, "fence": 0, "entries": {}}))
    asked: list[Path] = []

    def evaluate(folders: list[Path], _: object) -> list[dict[str, object]]:
        asked.extend(folders)
        return [{"fixed": SUITE, "all": SUITE} for _ in folders]

    monkeypatch.setattr("chorus.benchmarks.experiments.prompt_augmentation.evaluate.evaluate", evaluate)
    _measure(run_dir)
    _measure(run_dir)
    assert [path.parent.name for path in asked] == ["step-000060"]
    assert [p["step"] for p in json.loads((run_dir / "curves.json").read_text())] == [20, 40, 60]


def test_the_arms_are_nested_so_that_qwen_math_is_in_each() -> None:
    assert {arm: len(names) for arm, names in ARMS.items()} == {13: 13, 4: 4, 1: 1}
    assert set(ARMS[1]) < set(ARMS[4]) < set(ARMS[13])
