"""Numbers read without algebra: what is equal, by stated rules."""

from fractions import Fraction

import pytest

from chorus.reward_server.graders.math.numbers import read_number, same_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-7", -7),
        ("+7", 7),
        ("1,234", 1234),
        ("1,234,567.5", Fraction("1234567.5")),
        ("12 345", 12345),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("142.0", 142),
        ("3/4", Fraction(3, 4)),
        (r"-\frac{3}{4}", Fraction(-3, 4)),
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        ("1 1/2", Fraction(3, 2)),
        (r"1\frac{1}{2}", Fraction(3, 2)),
        (r"-1 \frac{1}{2}", Fraction(-3, 2)),
        (r"\$10", 10),
        (r"-\$10.50", Fraction("-10.5")),
        (r"30^\circ", 30),
        (r"30^{\circ}", 30),
        ("30 degrees", 30),
        (r"42\%", Fraction(42, 100)),
        (r"33\frac{1}{3}\%", Fraction(1, 3)),
        ("1e5", 100000),
        (r"6.02 \times 10^{23}", 602 * 10**21),
        (r"10^{-3}", Fraction(1, 1000)),
        (r"2\cdot10^3", 2000),
    ],
)
def test_a_number_is_read_exactly(text, value):
    number = read_number(text)
    assert number is not None
    assert number.value == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1,2",
        "1,23",
        "1+1",
        "2^{10}",
        "(1,2)",
        "1/0",
        "1 2 3",
        "9" * 100,
        "1e999",
        "10^{99999}",
        "4 5/",
    ],
)
def test_anything_else_is_no_number(text):
    assert read_number(text) is None


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("42", r"42\%", False),
        (r"42\%", "42", True),
        (r"42\%", "0.42", True),
        ("0.42", r"42\%", True),
        (r"42\%", "4.2", False),
        ("1/3", "0.333333", True),
        ("1/3", "0.33", False),
        ("2/3", "0.6666667", True),
        ("0.5", "1/2", True),
        ("3.14", "3.14159", True),
        ("3.14", "3.15", False),
        ("3.14", "22/7", True),
        ("0.3", "1/3", False),  # one digit is a value, not a rounding
        ("17", "17.0000001", False),
        ("17", "16.9999999", False),
        (r"6.022\times 10^{23}", r"6.02\times 10^{23}", True),
        (r"6.02\times 10^{23}", "6.0221e23", True),
        (r"6.02\times 10^{23}", r"6.02\times 10^{22}", False),
        (r"4.5\times 10^{33}", r"4.49\times 10^{33}", True),
        (r"4.5\times 10^{33}", r"4.6\times 10^{33}", False),
    ],
)
def test_same_number(gold, answer, same):
    gold_number, answer_number = read_number(gold), read_number(answer)
    assert gold_number is not None
    assert answer_number is not None
    assert same_number(gold_number, answer_number) is same
