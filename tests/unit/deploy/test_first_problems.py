"""What a recipe asks of its problems is refused before anything starts, also where the model is yet to be built."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chorus.deploy.preflight import check_inputs
from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.exits import CannotGoOn

Look = Callable[..., None]
WORKED = [
    {"problem": f"What is {k} + {k}?", "answer": str(2 * k), "level": k % 2, "domain": "sums", "id": f"p{k}"}
    | {"solution": f"Twice {k} is to be told. It is \\boxed{{{2 * k}}}.", "sub_answers": [str(k)]}
    for k in range(12)
]
BARE = [{"problem": row["problem"], "answer": row["answer"]} for row in WORKED]
OTHERS = [{"problem": f"How many legs have {k} spiders?", "answer": str(8 * k)} for k in range(1, 6)]


def stage(**fields: Any) -> dict[str, Any]:
    return {"curriculum": {"stages": [{"name": "only", **fields}]}}


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """What `chorus run` looks at first, of these rows to train on and the five others held out."""
    (tmp_path / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in OTHERS))
    lines = [{"id": f"p{k}", "model": "m", "hint_ratio": 0.0, "samples": 4, "correct": 1} for k in range(12)]
    (tmp_path / "rates.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def call(rows: list[dict[str, Any]], **sections: dict[str, Any]) -> None:
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        recipe: dict[str, dict[str, Any]] = {
            "model": {"path": "starter", "context": 400},
            "problems": {"train": [str(tmp_path / "train.jsonl")], "max_prompt_tokens": 300},
            "templates": {"names": ["qwen-math"]},
            "sampling": {"max_tokens": 16},
        }
        text = json.dumps({name: recipe.get(name, {}) | sections.get(name, {}) for name in recipe | sections})
        check_inputs(RunConfig.model_validate_json(text.replace("HERE", str(tmp_path))))

    return call


RATES = {"pass_rates": ["HERE/rates.jsonl"]}
RELIFT = {"relift": {"enabled": True}}
HINTED = stage(hint_ratio=0.25)
BLOCKS = {"reward": {"interleaved": {}}, "templates": {"names": ["interleaved"]}}


@pytest.mark.parametrize(
    ("works", "rows", "refused", "said"),
    [
        (stage(levels=[1]), WORKED, stage(levels=[7]), "stages: only: of 12 problems none is left (12 level)"),
        (stage(domains={"sums": 1}), WORKED, stage(domains={"art": 1}), "none is left (12 domain)"),
        (stage(domains={"sums": 1}), WORKED, stage(domains={"sums": 1, "art": 1}), "no problem of the domain art"),
        (HINTED, WORKED, None, "(12 no_solution)"),
        (stage(hint_ratio="online"), WORKED, None, "(12 no_solution)"),
        (
            {"curriculum": HINTED["curriculum"] | {"hints": {"unit": "tokens"}}},
            WORKED,
            {"curriculum": stage(hint_ratio=0.25, levels=[7])["curriculum"] | {"hints": {"unit": "tokens"}}},
            "(12 level)",
        ),
        (
            {"curriculum": stage(pass_rate={"high": 0.5})["curriculum"] | RATES},
            WORKED,
            {"curriculum": stage(pass_rate={"low": 0.5})["curriculum"] | RATES},
            "none is left (12 pass_rate)",
        ),
        (RELIFT, WORKED, None, "relift.enabled: no problem has a solution to train on (12 no_solution)"),
        (BLOCKS, WORKED, None, "no problem of problems.train has `sub_answers`"),
        (BLOCKS, WORKED, BLOCKS | {"templates": {"names": ["abel"]}}, "no template of templates.names asks for blocks"),
        (
            {"problems": {"exclude_overlap": ["HERE/others.jsonl"]}},
            WORKED,
            {"problems": {"exclude_overlap": ["HERE/train.jsonl"]}},
            "problems.exclude_overlap leaves no problem to train on",
        ),
        (
            {"problems": {"heldout": ["HERE/others.jsonl"]}, "evaluation": {"problems": 5}},
            WORKED,
            {"problems": {"heldout": ["HERE/others.jsonl"]}, "evaluation": {"problems": 6}},
            "problems.heldout has 5 problems, and evaluation.problems asks for 6; lower it",
        ),
        (
            {
                "problems": {"heldout": ["HERE/others.jsonl"]},
                "evaluation": {"problems": 2, "every": 1, "validation_problems": 3},
            },
            WORKED,
            {
                "problems": {"heldout": ["HERE/others.jsonl"]},
                "evaluation": {"problems": 2, "every": 1, "validation_problems": 4},
            },
            "problems.heldout leaves 3 problems to validate on, and evaluation.validation_problems is 4; lower it",
        ),
    ],
)
def test_what_leaves_nothing_to_do_is_refused_at_the_start(
    look: Look, works: dict[str, Any], rows: list[dict[str, Any]], refused: dict[str, Any] | None, said: str
) -> None:
    """Where no other recipe is refused, it is the same one over problems that have nothing beside their answers."""
    look(rows, **works)
    with pytest.raises(CannotGoOn) as found:
        look(rows if refused else BARE, **(refused or works))
    assert said in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("used", [{"terms": [{"grader": "mine"}]}, {"shadow": "mine"}, {}])
@pytest.mark.parametrize("kind", ["math", "mine"])
def test_a_grader_that_nobody_asks_is_refused(look: Look, tmp_path: Path, used: dict[str, Any], kind: str) -> None:
    (tmp_path / "g.py").write_text("def f(completion, row):\n    return 1.0\n")
    reward = {"graders": [{"name": "mine", "function": "HERE/g.py:f"}]} | used
    rows = [row | {"kind": kind} for row in BARE[:1]] + BARE[1:]
    if used or kind == "mine":
        look(rows, reward=reward)
        return
    with pytest.raises(CannotGoOn, match=r'graders: mine: nobody asks it: make it a term .* grader = "mine"'):
        look(rows, reward=reward)


@pytest.mark.parametrize(
    ("package", "sections", "said"),
    [
        ("datasets", {"problems": {"heldout": ["hub:some/set?config=main"]}}, "pip install 'chorus-rl[hub]'"),
        ("wandb", {"trackers": {"wandb": "mine"}}, "trackers.wandb is set, but the package wandb is not installed"),
    ],
)
def test_a_package_that_is_not_there_is_missed_at_the_start(
    look: Look, monkeypatch: pytest.MonkeyPatch, package: str, sections: dict[str, Any], said: str
) -> None:
    there, find = set[str](), importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: (name in there or None) if name == package else find(name)
    )
    with pytest.raises(CannotGoOn) as found:
        look(WORKED, **sections)
    assert said in str(found.value)
    there.add(package)
    look(WORKED, **sections)


def test_problems_that_the_hub_adds_are_the_learner_s_to_count(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "datasets" or find(name))
    look(WORKED, **stage(levels=[7]), problems={"train": ["HERE/train.jsonl", "hub:some/set"]})
