"""Problems of our own in the manner of the public sets, and edits after which a person would call them the same."""

from __future__ import annotations

import re
from collections.abc import Callable

PROBLEMS: list[tuple[str, str]] = [  # text, answer
    (
        "Maria bakes 14 trays of cookies for the school fair. Each tray holds 24 cookies, and she sells three quarters "
        "of all cookies on Saturday. How many cookies are left for Sunday?",
        "84",
    ),
    (
        "A train leaves the station at 9:40 and travels 180 kilometers at a constant speed of 72 kilometers an hour. "
        "At what time does it arrive, if it stops twice for 5 minutes each?",
        "12:20",
    ),
    (
        r"Let $f(x) = x^3 - 6x^2 + 11x - 6$. Find the sum of the squares of all real roots of the equation $f(x) = 0$.",
        "14",
    ),
    (
        r"How many positive integers $n$ less than $1000$ are divisible by $7$ but not by $11$ and leave remainder "
        r"$2$ when divided by $5$?",
        "26",
    ),
    (
        r"Triangle $ABC$ has a right angle at $C$, with $AC = 5$ and $BC = 12$. The bisector of angle $A$ meets $BC$ "
        r"at point $D$. Find the length of segment $CD$.",
        r"\frac{10}{3}",
    ),
    (
        "A jar holds red, blue and green marbles in the ratio 3 to 5 to 7. After 12 blue marbles are taken away, there "
        "are as many blue marbles as red ones. How many green marbles does the jar hold?",
        "42",
    ),
    (
        r"Compute $\sum_{k=1}^{20} \frac{1}{k(k+1)}$ and express your answer as a common fraction in lowest terms.",
        r"\frac{20}{21}",
    ),
    (
        "Two fair dice are rolled, and the larger of the two numbers is written down. What is the probability that "
        "the number written down is at least 5?",
        r"\frac{5}{9}",
    ),
    (
        r"The circle with equation $x^2 + y^2 - 6x + 8y = 0$ is cut by the line $y = x$ in two points. Determine the "
        r"distance between these two points.",
        r"\sqrt{2}",
    ),
    (
        "A farmer has chickens and rabbits. Together they have 35 heads and 94 legs. How many more chickens than "
        "rabbits does the farmer have?",
        "11",
    ),
    (
        r"Find the smallest positive integer whose digits add up to $20$ and whose decimal representation contains no "
        r"digit larger than $6$.",
        "2666",
    ),
    (
        "A rectangular garden is three times as long as it is wide. A path of width 2 meters runs around the outside "
        "of the garden and has an area of 144 square meters. What is the area of the garden in square meters?",
        "192",
    ),
]


def _swapped(text: str, pairs: dict[str, str]) -> str:
    for old, new in pairs.items():
        text = re.sub(rf"\b{old}\b", new, text)
    return text


SAME: dict[str, Callable[[str], str]] = {  # nothing but layout: equal after normalisation
    "white space": lambda t: "  " + t.replace(" ", "\n ", 3) + "\t",
    "case": lambda t: t.upper() if "$" not in t else t[0].lower() + t[1:],
    "dollars": lambda t: t.replace("$", "$$"),
    "fractions of another size": lambda t: t.replace(r"\frac", r"\dfrac"),
    "thousands": lambda t: t.replace("1000", "1{,}000"),
    "stretched brackets": lambda t: t.replace("(", r"\left(").replace(")", r"\right)"),
    "a diagram": lambda t: t + "\n[asy]\ndraw((0,0)--(1,1));\n[/asy]",
    "punctuation": lambda t: t.replace(",", "").replace(".", " .").replace("?", " ?"),
}

EDITS: dict[str, Callable[[str], str]] = {  # a paraphrase of some words: near
    "other verbs": lambda t: _swapped(
        t,
        {"Find": "Determine", "Determine": "Calculate", "Compute": "Evaluate", "How many": "What number of",
         "What is": "Find", "holds": "contains", "travels": "goes", "has": "owns"},
    ),
    "another name": lambda t: _swapped(t, {"Maria": "Sofia", "farmer": "peasant", "train": "bus", "jar": "box"}),
    "numbers as words": lambda t: _swapped(t, {"2": "two", "5": "five", "three": "3", "7": "seven", "12": "twelve"}),
    "a request at the end": lambda t: t + " Give your final answer as a simplified number inside a box.",
    "a request in front": lambda t: "Solve the following problem step by step. " + t,
    "a word left out": lambda t: _swapped(t, {"all": "", "the": ""}).replace("  ", " "),
    "a typing error": lambda t: t.replace("e ", "e  ", 1).replace("ar", "ra", 1).replace("in", "ni", 1),
}  # fmt: skip
