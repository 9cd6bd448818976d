"""ReLIFT in the loop: what is held and when it trains, its version, and a crash at any place; without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from paperlearner import config_of, start

from chorus.learner.loop import Learner
from chorus.learner.parts import Parts
from chorus.learner.rollouts import relift
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Entry, Rollout
from chorus.protocol.messages import Problem, RolloutGroup, Version
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.demonstrations import read_batch, recorded_steps, step_of, write_batch
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn

ALL_WRONG = (0.0,)


def relift_config(model: Path, folder: Path, batch: int = 3, **sections: dict[str, Any]) -> RunConfig:
    """Two groups a step; every problem has a solution of which 7 is the answer."""
    relift = {"enabled": True, "batch": batch} | sections.pop("relift", {})
    config = config_of(model, folder, relift=relift, **sections)
    rows = [{"id": f"p{k}", "problem": f"{k}?", "answer": "7", "solution": f"{k} is \\boxed{{7}}"} for k in range(40)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return config


def run_of(client: redis.Redis, config: RunConfig, folder: Path, *args: Any) -> tuple[Learner, Parts]:
    learner, parts = start(client, config, folder, *args)
    learner.run()
    return learner, parts


def test_a_batch_is_recorded_before_it_trains_after_the_steps_own_update_and_before_new_groups_are_admitted(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    seen: list[str] = []
    config = relift_config(tiny_model, tmp_path, batch=2, run={"steps": 1})

    def look(name: str) -> None:
        seen.append(name)
        if name == "supervise":
            assert recorded_steps(RunFolder(tmp_path)) == [1], "on the disk by then"

    learner, parts = start(client, config, tmp_path, look, ALL_WRONG)
    learner.life.begin()
    seen.clear()
    learner.step()
    order = [name for name in seen[seen.index("record") :] if name != "admit"]
    assert order[:5] == ["record", "train", "supervise", "trained", "publish"]
    assert seen.index("supervise") < len(seen) - 1 - seen[::-1].index("admit")
    learner.life.settle()
    assert (parts.ledger.accounts().trained, parts.ledger.accounts().durable) == (2, 2), "rollouts alone count"


def test_hard_prompts_enter_once_a_group_newest_in_front_and_train_when_there_are_enough(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    config = relift_config(tiny_model, tmp_path, run={"steps": 4})
    _, parts = run_of(client, config, tmp_path, lambda name: None, ALL_WRONG)
    asked = [parts.admission.at(k)[1].problem.id for k in range(8)]
    taught = parts.ranks.taught  # type: ignore[attr-defined]
    # 2, 4: three train and one stays; 3, 5: three train and two stay.
    assert taught == [[asked[3], asked[2], asked[1]], [asked[5], asked[4], asked[0]]]
    assert [id for id, _ in parts.relift.held] == [asked[7], asked[6]]
    records = RunFolder(tmp_path).records()
    assert [r["hard_prompts"] for r in records] == [2, 1, 0, 2]
    assert [r["supervised_updates"] for r in records] == [None, 1, 1, None]
    assert [r["supervised_demonstrations"] for r in records] == [None, 3, 3, None]


@pytest.mark.parametrize("accuracies", [(0.0, 1.0), (0.0, None), (0.0, 0.1)])
def test_a_group_with_a_sample_that_is_or_may_be_right_is_not_hard(
    accuracies: tuple[float, ...], client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    _, parts = start(client, relift_config(tiny_model, tmp_path, 1), tmp_path, lambda name: None, accuracies)
    parts.weights.published.append(Version(fence=1, step=0))  # type: ignore[attr-defined]
    payload = parts.weights.answer(parts.admission.task(0, 0))  # type: ignore[attr-defined]
    assert parts.relift.due(1, [Rollout(Entry("1-0", 0, payload), RolloutGroup.decode(payload))]) == []
    assert parts.relift.held == []


def test_dedupe_holds_a_problem_once(client: redis.Redis, tiny_model: Path, tmp_path: Path) -> None:
    for dedupe, held in ((False, [2, 4]), (True, [1, 1])):
        client.flushall()
        folder = tmp_path / str(dedupe)
        config = relift_config(tiny_model, folder, 99, run={"steps": 2}, relift={"dedupe": dedupe})
        row = json.loads((folder / "train.jsonl").read_text().splitlines()[0])
        (folder / "train.jsonl").write_text(json.dumps(row) + "\n")
        run_of(client, config, folder, lambda name: None, ALL_WRONG)
        assert [r["hard_prompts"] for r in RunFolder(folder).records()] == held


def test_the_version_counts_supervised_updates_and_so_does_the_age_of_later_samples(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    # Both groups of a step are hard: a supervised update after every step.
    found = {}
    for enabled in (False, True):
        client.flushall()
        folder = tmp_path / str(enabled)
        config = relift_config(tiny_model, folder, batch=2, run={"steps": 4}, relift={"enabled": enabled})
        _, parts = run_of(client, config, folder, lambda name: None, ALL_WRONG)
        records = RunFolder(folder).records()
        published = [v.step for v in parts.weights.published]  # type: ignore[attr-defined]
        found[enabled] = published, [r["version"] for r in records], [r["staleness_max"] for r in records]
        assert parts.ledger.accounts().dropped == {}
    assert found[True] == tuple([2 * n for n in numbers] for numbers in found[False])
    assert found[True][:2] == ([0, 2, 4, 6, 8], [0, 2, 4, 6])
    assert max(found[True][2]) == 2, "one step late is two versions late"


def test_without_lateness_new_groups_wait_for_the_supervised_weights(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    config = relift_config(tiny_model, tmp_path, 2, run={"steps": 3}, staleness={"target": 0, "max": 0})
    run_of(client, config, tmp_path, lambda name: None, ALL_WRONG)
    assert [r["staleness_max"] for r in RunFolder(tmp_path).records()] == [0, 0, 0]


class Killed(BaseException):
    """What no handler of the learner's catches: a `kill -9`."""


@pytest.mark.parametrize(
    ("place", "nth"),
    [
        *(("train", 2), ("recorded", 1), ("supervise", 1), ("trained", 2), ("admit", 6), ("publish", 3)),
        *(("manifest", 1), ("durable", 1), ("train", 3), ("supervise", 2), ("manifest", 2)),
    ],
)
def test_a_learner_killed_anywhere_trains_the_same_batches_at_their_places(
    place: str, nth: int, unbroken: Any, client: redis.Redis, tiny_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    left = [nth]

    def dies(name: str) -> None:
        left[0] -= name == place
        if name == place and left[0] == 0:
            raise Killed(name)

    def write(*args: Any) -> None:
        dies("recorded")
        write_batch(*args)

    monkeypatch.setattr(relift, "write_batch", write)
    config = relift_config(tiny_model, tmp_path, run={"steps": 3})
    with pytest.raises(Killed):
        run_of(client, config, tmp_path, dies, ALL_WRONG)
    _, parts = run_of(client, config, tmp_path, lambda name: None, ALL_WRONG)
    assert (parts.ranks.trained, parts.ranks.taught, parts.relift.kept()) == unbroken  # type: ignore[attr-defined]
    assert recorded_steps(RunFolder(tmp_path)) == [2, 3]
    assert parts.ledger.accounts().difference == 0


@pytest.fixture
def unbroken(client: redis.Redis, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the weights and the buffer of three steps without a crash are: batches after the second and the third."""
    if not _UNBROKEN:
        folder = tmp_path_factory.mktemp("whole")
        _, parts = run_of(client, relift_config(tiny_model, folder), folder, lambda name: None, ALL_WRONG)
        _UNBROKEN.append((parts.ranks.trained, parts.ranks.taught, parts.relift.kept()))  # type: ignore[attr-defined]
        client.flushall()
    return _UNBROKEN[0]


_UNBROKEN: list[Any] = []


def test_a_recorded_batch_comes_again_whatever_the_recipe_says_by_then(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    learner, _ = start(client, relift_config(tiny_model, tmp_path, 2), tmp_path, _dies_at("supervise"), ALL_WRONG)
    with pytest.raises(Killed):
        learner.run()
    recorded = read_batch(RunFolder(tmp_path), 1)
    other = relift_config(tiny_model, tmp_path, 40, run={"steps": 1})
    _, parts = run_of(client, other, tmp_path, lambda name: None, ALL_WRONG)
    assert parts.ranks.taught == [[d.problem_id for d in recorded]]  # type: ignore[attr-defined]
    assert parts.relift.held == []


def test_a_batch_whose_step_does_not_come_again_is_forgotten(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    learner, _ = start(client, relift_config(tiny_model, tmp_path, 2), tmp_path, _dies_at("supervise"), ALL_WRONG)
    with pytest.raises(Killed):
        learner.run()
    client.flushall()  # with the ledger the recorded step is lost: other groups are trained in its place
    start(client, relift_config(tiny_model, tmp_path, 2), tmp_path)
    assert recorded_steps(RunFolder(tmp_path)) == []


def _dies_at(place: str) -> Any:
    def dies(name: str) -> None:
        if name == place:
            raise Killed

    return dies


def test_a_version_is_that_of_the_weights_after_a_step(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (2, 3):
        write_batch(run, step, [])
    assert [step_of(run, version) for version in (0, 1, 3, 5, 6)] == [0, 1, 2, 3, 4]
    run.config.write_text('{"finetune": {"data": ["critiques.jsonl"]}}')
    assert step_of(run, 5) == 5, "of fine-tuning every step is one supervised update"


def test_a_target_is_the_stored_solution_and_its_end_which_a_long_one_has_in_its_last_place(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    for longest in (16, 4):
        client.flushall()
        folder = tmp_path / str(longest)
        config = relift_config(tiny_model, folder, 1, run={"steps": 1}, relift={"max_tokens": longest})
        _, parts = run_of(client, config, folder, lambda name: None, ALL_WRONG)
        [shown] = read_batch(RunFolder(folder), 1)
        tokenizer, problem = parts.admission.tokenizer, parts.admission.by_id[shown.problem_id]
        whole = tokenizer.encode(problem.solution or "", add_special_tokens=False)
        assert len(whole) > 3
        assert shown.target == [*whole[: longest - 1], tokenizer.eos_token_id]
        assert shown.prompt == parts.admission.render(problem, parts.admission.templates["qwen-math"])


def test_problems_without_a_solution_to_train_on_are_counted_and_a_run_without_any_is_refused(
    client: redis.Redis, tiny_model: Path, tmp_path: Path
) -> None:
    config = relift_config(tiny_model, tmp_path, 99, run={"steps": 1}, learner={"groups_per_step": 40})
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    rows[0].pop("solution")
    rows[1]["solution"] = "it is 8"
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_of(client, config, tmp_path, lambda name: None, ALL_WRONG)
    [record] = RunFolder(tmp_path).records()
    assert record["hard_prompts"] == 38
    assert record["hard_prompts_skipped"] == {"no_solution": 1, "answer_not_in_solution": 1}
    (tmp_path / "train.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(CannotGoOn, match=r"no problem has a solution to train on \(1 no_solution\): give the problems"):
        start(client, config, tmp_path)


def test_a_solution_that_breaks_the_templates_contract_is_not_trained_on() -> None:
    from chorus.learner.curriculum.asked import teaching_refusal
    from chorus.protocol.templates.load import load_templates

    template = load_templates()["open-r1"]
    good = "<think>\n3 + 4 = 7\n</think>\n<answer>\n\\boxed{7}\n</answer>"
    assert teaching_refusal(Problem(id="p", problem="?", answers=["7"], solution=good), template) is None
    assert (
        teaching_refusal(Problem(id="p", problem="?", answers=["7"], solution="\\boxed{7}"), template)
        == "not_in_the_layout"
    )


def test_what_the_checkpoint_keeps_is_taken_up(client: redis.Redis, tiny_model: Path, tmp_path: Path) -> None:
    config = relift_config(tiny_model, tmp_path, run={"steps": 2})
    _, parts = run_of(client, config, tmp_path, lambda name: None, ALL_WRONG)
    newest = checkpoints.latest(tmp_path / "checkpoints")
    assert newest
    kept = checkpoints.read_manifest(newest).methods["relift"]
    assert (len(kept["held"]), kept["updates"]) == (1, 1)
    _, again = start(client, config, tmp_path)
    assert (again.relift.held, again.relift.updates, again.version) == (parts.relift.held, 1, 3)
    assert again.groups.window.versions_a_step == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"objective": {"dynamic_sampling": True}}, "objective.dynamic_sampling drops them before they are trained"),
        ({"staleness": {"target": 2, "max": 3}}, "would be dropped: set it to at least that"),
        ({"relift": {"max_tokens": 101}}, "model.context has room for 100"),
    ],
)
def test_what_can_not_be_right_is_refused(changes: dict[str, Any], why: str, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=why):
        relift_config(tiny_model, tmp_path, **changes)
