"""Every two methods in one run: they train, break off and go on with balanced accounts, or are refused with a reason.
docs/methods/together.md has the table, which is read here. The model is a list (paperlearner), so what a method does to
weights is not seen here, but that its turn came is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import redis
from paperlearner import PaperRanks, config_of, start
from pydantic import ValidationError

from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.load import load_templates

TABLE = Path(__file__).parents[3] / "docs" / "methods" / "together.md"
SOLUTION = "We count.\n\nThat is 3.\n\nFour more.\n\nSo it is \\boxed{7}."
Sections = dict[str, dict[str, Any]]
# What a recipe says to have the method, and no more.
METHODS: dict[str, Sections] = {
    "prompt augmentation": {"templates": {"names": sorted(load_templates())}},
    "QuestA": {"curriculum": {"stages": [{"name": "half", "hint_ratio": 0.5, "steps": 1}, {"name": "bare"}]}},
    "QuestA online": {"curriculum": {"stages": [{"name": "online", "hint_ratio": "online"}]}},
    "SPARKLE": {
        "curriculum": {
            "hints": {"unit": "parts", "place": "assistant", "reject_if_answer_in_hint": False, "probe_share": 0.0},
            "stages": [{"name": "parts", "hint_ratio": [0.0, 0.5]}],
        }
    },
    "stages": {
        "curriculum": {
            "stages": [
                {"name": "a", "steps": 1, "lr": 2e-6},
                {"name": "b", "group_size": 3, "domains": {"x": 2, "y": 1}},
            ]
        }
    },
    "ReLIFT": {"relift": {"enabled": True, "batch": 2}},
    "resets": {"objective": {"kl_coefficient": 0.1, "kl_in": "loss"}, "reference": {"every": 1}},
    "controllers": {"objective": {"kl_coefficient": 0.1, "kl_in": "loss", "kl_target": 0.1, "entropy_target": 0.5}},
    "Short-RL": {"reward": {"short": {}}},
    "cosine": {"reward": {"cosine": {"on_updates": 1, "off_updates": 1}}},
    "interleaved": {"templates": {"names": ["interleaved"]}, "reward": {"interleaved": {}}},
    "GRPO": {"objective": {"name": "grpo", "kl_coefficient": 0.1}},
    "DAPO": {"objective": {"name": "dapo"}},
}
# What a run's records say once the method's turn has come; a method with stages is seen by their names.
SEEN: dict[str, Callable[[list[dict[str, Any]]], bool]] = {
    "prompt augmentation": lambda records: len({name for r in records for name in r["by_template"]}) > 1,
    "ReLIFT": lambda records: any(r["supervised_updates"] for r in records),
    "resets": lambda records: records[-1]["reference_resets"] > 0,
    "controllers": lambda records: all(r["kl_coefficient"] for r in records),
    "Short-RL": lambda records: any(r["short_gate"] for r in records),
    "cosine": lambda records: any(r["cosine_gate"] for r in records),
    "interleaved": lambda records: any(r["interleaved_gate"] is not None for r in records),
    "GRPO": lambda records: all(r["kl_coefficient"] for r in records),
    "DAPO": lambda records: any(r["groups_filtered"] for r in records),
}


class Killed(BaseException):
    """What no handler of the learner's catches."""


def together(first: Sections, second: Sections) -> Sections:
    """Both methods' keys, the templates of both, and the stages of both in turn."""
    merged: Sections = {name: dict(section) for name, section in first.items()}
    for name, section in second.items():
        here = merged.setdefault(name, {})
        for key, value in section.items():
            if key == "stages":
                value = [*({"steps": 1} | stage for stage in here.get(key, [])), *value]
            elif isinstance(value, list):
                value = [*here.get(key, []), *value]
            here[key] = here[key] | value if isinstance(value, dict) and key in here else value
    return merged


def refused() -> dict[frozenset[str], str]:
    """The pairs that the page says are refused, with the words that do it."""
    table = TABLE.read_text().partition("| method | with | refused with |")
    rows = [line.split("|")[1:-1] for line in "".join(table[1:]).splitlines() if line.startswith("| ")]
    return {frozenset(cell.strip() for cell in row[:2]): row[2].strip().strip("`") for row in rows[2:]}


def trained(client: redis.Redis, model: Path, folder: Path, sections: Sections) -> list[dict[str, Any]]:
    """The records of a run that was broken off in its second step and went on to its end, in its last stage."""
    stages = sections.get("curriculum", {}).get("stages", [])
    steps = max(2, 2 * len(stages))  # problems are drawn a step ahead, so a stage of one step is trained in two or so
    common: Sections = {
        "run": {"steps": steps},
        "model": {"path": str(model), "context": 1100},
        "problems": {"train": [str(folder / "train.jsonl")], "max_prompt_tokens": 1000},
        "learner": {"groups_per_step": 3, "collect_deadline_s": 5.0, "checkpoint_every": 1},
    }
    config = config_of(model, folder, **(common | sections))
    row = {"answer": "7", "solution": SOLUTION, "sub_answers": ["3"]}
    rows = [row | {"id": f"p{k}", "problem": f"{k}?", "domain": "xy"[k % 2]} for k in range(12)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainings: list[str] = []

    def dies_in_step_two(name: str) -> None:
        trainings.extend([name] if name == "trained" else [])
        if len(trainings) == 2:
            raise Killed

    def accuracies(index: int) -> tuple[float, ...]:
        return (0.0,) if index % 3 == 1 else (1.0, 0.0)

    learner, _ = start(client, config, folder, dies_in_step_two, accuracies)
    with pytest.raises(Killed):
        learner.run()
    learner, parts = start(client, config, folder, accuracies=accuracies)
    learner.run()
    records = RunFolder(folder).records()
    assert [r["step"] for r in records] == list(range(1, steps + 1))
    assert {stage["name"] for stage in stages} <= {r["stage"] for r in records}
    accounts = parts.ledger.accounts()
    assert accounts.difference == 0
    assert isinstance(parts.ranks, PaperRanks)
    order = parts.ranks.trained
    assert len(order) == len(set(order)) == accounts.durable
    return records


@pytest.mark.parametrize("pair", list(combinations(METHODS, 2)), ids="+".join)
def test_two_methods_train_together_or_are_refused_with_the_reason(
    client: redis.Redis, tiny_model: Path, tmp_path: Path, pair: tuple[str, str]
) -> None:
    sections = together(*(METHODS[name] for name in pair))
    reason = refused().get(frozenset(pair))
    if reason is None:
        records = trained(client, tiny_model, tmp_path, sections)
        assert [name for name in pair if name in SEEN and not SEEN[name](records)] == []
    else:
        with pytest.raises((ValidationError, CannotGoOn), match=re.escape(reason)):
            trained(client, tiny_model, tmp_path, sections)


def test_the_page_names_all_methods_and_refuses_no_pair_that_is_none() -> None:
    text = TABLE.read_text()
    assert [name for name in METHODS if name not in text] == []
    assert refused(), "else the table is read wrongly"
    assert {name for pair in refused() for name in pair} <= METHODS.keys()
