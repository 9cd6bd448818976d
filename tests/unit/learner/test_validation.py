"""Which checkpoint a run selects, and that the selected one stays, whatever is pruned and undone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from storedrun import grade, group

from chorus.learner.rollouts.questions import Evaluation
from chorus.learner.validation import Evaluations
from chorus.protocol.config.load import ConfigError, load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.checkpoints import prune
from chorus.protocol.run_folder.folder import RunFolder

RECIPE = """
[run]
steps = 10
[model]
path = "none"
[problems]
train = ["none"]
heldout = [{heldout}]
[templates]
names = [{names}]
[evaluation]
every = {every}
"""


def config(folder: Path, every: int = 4, heldout: str = '"some"', names: str = '"qwen-math"') -> RunConfig:
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(every=every, heldout=heldout, names=names))
    return load_config(path)


def evaluations(folder: Path, **recipe: Any) -> Evaluations:
    """As far as its files go: nobody is asked."""
    nobody: Any = None
    return Evaluations(config(folder, **recipe), RunFolder(folder), nobody, nobody, nobody)


def result(step: int, accuracy: float) -> dict[str, Any]:
    return Evaluation(
        step=step,
        problems=8,
        samples=4,
        accuracy=accuracy,
        greedy=0.0,
        format=1.0,
        response_tokens_mean=5.0,
        truncated=0.0,
        ungraded=0,
        seconds=1.0,
    ).as_dict()


def checkpoints(folder: Path, *steps: int) -> Path:
    for step in steps:
        path = folder / "checkpoints" / f"step-{step:06d}"
        (path / "state").mkdir(parents=True)
        (path / "huggingface").mkdir()
        (path / "manifest.json").write_text(json.dumps({"step": step, "fence": 1, "entries": {}}))
    return folder / "checkpoints"


def with_weights(folder: Path) -> list[str]:
    return sorted(p.parent.name for p in folder.glob("*/huggingface") if (p.parent / "state").is_dir())


def test_a_validation_is_due_every_so_many_steps_and_after_the_last(tmp_path: Path) -> None:
    some = evaluations(tmp_path)
    assert [step for step in range(11) if some.due(step)] == [4, 8, 10]
    assert not any(evaluations(tmp_path, every=0).due(step) for step in range(11))


def test_the_best_on_validation_is_selected_and_the_earlier_one_of_equals(tmp_path: Path) -> None:
    some = evaluations(tmp_path)
    chosen = [some.record(result(step, a)) for step, a in ((4, 0.5), (8, 0.7), (10, 0.7))]
    assert chosen == [4, 8, 8]
    assert some.selected_step() == 8
    summary = some.summary()
    assert (summary["last"]["step"], summary["selected"]["step"]) == (10, 8)
    assert summary["selected"]["template"] == "qwen-math"


def test_the_selected_checkpoint_outlives_pruning_until_a_better_one_is_selected(tmp_path: Path) -> None:
    some = evaluations(tmp_path)
    folder = checkpoints(tmp_path, 4, 8, 10)
    some.record(result(4, 0.9))
    prune(folder, 1, [some.selected_step()])
    assert with_weights(folder) == ["step-000004", "step-000010"]
    some.record(result(10, 0.95))
    prune(folder, 1, [some.selected_step()])
    assert with_weights(folder) == ["step-000010"]
    assert len(list(folder.glob("*/manifest.json"))) == 3  # the audit reads them


def test_a_rewound_run_forgets_the_validations_of_what_was_undone(tmp_path: Path) -> None:
    some = evaluations(tmp_path)
    some.record(result(4, 0.5))
    some.record(result(8, 0.7))
    with (tmp_path / "validation.jsonl").open("a") as file:
        file.write('{"step": 10, "accu')
    some.rewind(4)
    assert some.selected_step() == 4
    assert some.known(4)
    assert not some.known(8)
    some.rewind(0)
    assert some.selected_step() is None
    assert some.summary() == {}


def test_a_run_without_validation_selects_nothing(tmp_path: Path) -> None:
    some = evaluations(tmp_path)
    some.rewind(0)
    assert some.selected_step() is None


def test_validation_without_problems_is_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"name sources in problems.validation, or in problems.heldout"):
        config(tmp_path, heldout="")


def test_the_fixed_template_is_the_papers_where_it_is_trained_and_else_the_first(tmp_path: Path) -> None:
    assert config(tmp_path, names='"abel", "qwen-math"').validation_template == "qwen-math"
    assert config(tmp_path, names='"open-r1", "abel"').validation_template == "open-r1"


def test_the_answers_behind_an_evaluation_are_kept_as_rows(tmp_path: Path) -> None:
    some = evaluations(tmp_path)
    asked = group(7, "abel", [([1, 2], grade(1.0)), ([3], grade(0.0))]).group
    fresh = [sample.model_copy(update={"versions": [(1, 4, sample.n_tokens)]}) for sample in asked.samples]
    some.keep("step-000004", 4, 4, [asked.model_copy(update={"samples": fresh})])
    rows = pq.read_table(tmp_path / "evaluated" / "step-000004.parquet").to_pylist()
    assert [(r["step"], r["group"], r["sample"], r["accuracy"], r["staleness"]) for r in rows] == [
        *((4, 7, 0, 1.0, 0), (4, 7, 1, 0.0, 0))
    ]
