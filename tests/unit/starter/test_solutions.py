"""Sloppy solutions: exact when asked to be, wrong and garbled as often as they say."""

import re
from random import Random

import pytest

from chorus.protocol.templates.load import load_templates
from chorus.protocol.templates.score import format_score
from chorus.starter.solutions import sloppy_solution

TEMPLATES = load_templates()


def boxed(text: str) -> str | None:
    found = re.findall(r"\\boxed\{(\d+)\}", text)
    return found[-1] if found else None


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_without_slips_every_layout_is_right_and_fulfils_its_contract(name: str):
    completion = sloppy_solution(TEMPLATES[name], (3, 4, 5), Random(0), slip=0, garble=0)
    assert boxed(completion) == "2"
    assert "3 + 4 = 7, so 7 - 5 = 2" in completion
    assert format_score(TEMPLATES[name], completion) == 1


def test_the_layout_of_open_r1():
    completion = sloppy_solution(TEMPLATES["open-r1"], (3, 4, 5), Random(0), slip=0, garble=0)
    assert completion == "<think>\n3 + 4 = 7, so 7 - 5 = 2\n</think>\n<answer>\n\\boxed{2}\n</answer>"


def test_the_prefill_is_not_written_again():
    for template in TEMPLATES.values():
        if template.prefill:
            assert not sloppy_solution(template, (3, 4, 5), Random(0), slip=0, garble=0).startswith(template.prefill)


def test_slips_spoil_answers_and_garbling_spoils_layouts_as_often_as_told():
    random, template = Random(0), TEMPLATES["open-r1"]
    n = 4000
    slipped = [sloppy_solution(template, (9, 9, 3), random, slip=0.3, garble=0) for _ in range(n)]
    # Right without a slip in either step, or where the second slip undoes the first (4 of 16 pairs).
    right = 0.7**2 + 0.3**2 / 4
    assert sum(boxed(text) == "15" for text in slipped) / n == pytest.approx(right, abs=0.03)
    garbled = [sloppy_solution(template, (9, 9, 3), random, slip=0, garble=0.3) for _ in range(n)]
    # Six pieces; of them "\boxed{" and "}" are no markers, and each of the other four spoils its own.
    spoilt = 0.3 * 4 / 6
    assert sum(format_score(template, text) < 1 for text in garbled) / n == pytest.approx(spoilt, abs=0.03)
