"""Other writings of one answer that count, and what looks like them and does not."""

import pytest

from chorus import grade


def check(gold: str, answer: str, is_right: bool) -> None:
    result = grade(f"So the answer is \\boxed{{{answer}}}", gold=gold)
    assert (result.verdict == "correct") is is_right, result


@pytest.mark.parametrize("style", [r"\mathbf{%s}", r"\textbf{$%s$}", r"\text{$%s$}", r"{\bf %s}", r"{\large%s}"])
@pytest.mark.parametrize(
    ("formula", "gold", "other"),
    [(r"\frac{3}{4}", "3/4", "4/3"), (r"2\sqrt{2}", r"\sqrt8", r"\sqrt2"), ("2^{10}", "1024", "210")],
)
def test_a_font_around_a_formula_changes_nothing(style, formula, gold, other):
    check(gold, style % formula, True)
    check(other, style % formula, False)


@pytest.mark.parametrize(
    ("gold", "answer", "is_right"),
    [
        ("7", r"\Large 7", True),
        ("7", r"\huge{7}", True),
        ("7", r"\Large 8", False),
        (r"\frac{3}{4}", r"\mathbf{\frac34\text{ cm}}", True),
        (r"\frac{3}{4}", r"\text{not $\frac{3}{4}$}", False),
        (r"\frac{3}{4}", r"\textbf{never $\frac{3}{4}$}", False),
        ("2", r"\mathbf{2}^{2}", False),
    ],
)
def test_sizes_change_nothing_and_words_in_a_font_stay_words(gold, answer, is_right):
    check(gold, answer, is_right)
