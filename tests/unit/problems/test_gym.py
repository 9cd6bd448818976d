"""reasoning-gym by name. A scripted library stands for the package here; test_gym_tasks.py has the real one."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest
from scripted_gym import installed

from chorus.problems.sources import load_placed, load_problems
from chorus.protocol.reasoning_gym import GymError, digest, item, items


@pytest.fixture(autouse=True)
def gym() -> Iterator[None]:
    with installed():
        yield


def test_items_become_problems_whose_first_gold_names_them():
    problems = load_problems("reasoning-gym:sums?seed=5&size=3&largest=20")
    first = problems[0]
    assert len(problems) == 3
    assert first.kind == "reasoning_gym"
    assert first.domain == "arithmetic"
    assert first.source == "reasoning-gym:sums"
    assert first.answers[0] == f"reasoning-gym:sums?seed=5&size=3&largest=20#0@{digest(first.problem)}"
    found, entry = item(first.answers[0])
    assert entry["question"] == first.problem
    assert first.answers[1] == entry["answer"]
    assert found.task == "sums"


def test_the_same_item_has_the_same_id_whatever_the_seed_that_led_to_it():
    here = load_problems("reasoning-gym:sums?seed=5&size=10")
    there = load_problems("reasoning-gym:sums?seed=8&size=10")
    assert [p.id for p in here[3:]] == [p.id for p in there[:7]]


def test_items_that_repeat_another_one_are_left_out_and_counted(caplog: pytest.LogCaptureFixture):
    problems = load_problems("reasoning-gym:sums?size=200&largest=2")
    assert len({p.problem for p in problems}) == len(problems) < 10
    assert f"{200 - len(problems)} of 200 items repeat another one" in caplog.text


def test_values_are_read_as_json_or_as_text():
    assert items('reasoning-gym:sums?operators=["%2B","-"]&note=plain').dataset.config.operators == ["+", "-"]
    assert items("reasoning-gym:sums?note=plain").dataset.config.note == "plain"


def test_without_a_seed_the_items_are_the_same_every_time():
    assert items("reasoning-gym:sums").dataset.config.seed == 0
    assert len(load_placed("reasoning-gym:sums?largest=1000000000")) == 500


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("reasoning-gym:summs", "reasoning-gym has no task 'summs'; it has sums"),
        ("reasoning-gym:codeio", "running programs that nobody has read"),
        ("reasoning-gym:composite", "name each of them as a source of its own"),
        ("reasoning-gym:sums?smallest=3", "task 'sums' has no option 'smallest'; it has seed, size, largest"),
        ("reasoning-gym:sums?largest=0", "task 'sums' refuses these options (largest must be at least 1)"),
        ("reasoning-gym:sums?largest", "'largest' is no option; write name=value"),
        ("reasoning-gym:sums?size=0", "seed and size must be whole numbers"),
        ("reasoning-gym:sums?seed=today", "seed and size must be whole numbers"),
    ],
)
def test_a_spec_that_is_not_understood_is_refused(spec: str, named: str):
    with pytest.raises(ValueError, match=re.escape(named)):
        load_problems(spec)


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    items.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'chorus-rl\[gym\]'"):
        load_problems("reasoning-gym:sums")


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("reasoning-gym:sums#0@0123456789abcdef", "is another question here"),
        ("reasoning-gym:sums?size=3#3@0123456789abcdef", "the task has 3 items"),
        ("42", "does not name an item"),
        ("reasoning-gym:sums", "does not name an item"),
    ],
)
def test_a_name_that_leads_to_no_item_is_refused(name: str, named: str):
    with pytest.raises(GymError, match=named):
        item(name)
