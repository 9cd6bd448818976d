"""What a starter is warmed up on: sloppy solutions of which problems, in which words.

`starter` learns chain problems, and slips. `starter-running` learns running totals: to go on from a hint where one is
given, and a bad habit: four of five numbers it takes for one more than they are, and reckons rightly with that. Eight
such steps in a row are hardly ever right, four are now and then, and its greedy answer is wrong.
`starter-verbose` says the steps of a chain problem up to five times. `starter-two-hop` puts half of its solutions under
a template of interleaved blocks into one think block and one answer block.
`starter-code` learns chain problems and programs of one line, `starter-choice` chain problems and the same with four
options. Both slip in each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from chorus.problems import hints
from chorus.problems.arithmetic import (
    RUNNING_MAX,
    RUNNING_STEPS,
    chain_operands,
    chain_text,
    choice_options,
    choice_text,
    is_heldout,
    program_operands,
    program_text,
    running_answer,
    running_lines,
    running_operands,
    running_text,
)
from chorus.protocol.templates.template import Template
from chorus.starter.solutions import AGAIN, BOX, FIRST, GARBLE, LAST, SLIP, layout, slipped, sloppy_solution

HABIT = 0.8  # chance that a number is taken for one more
REACH = RUNNING_MAX + RUNNING_STEPS  # the largest total that the habit leads to, and the examples' largest
VERBOSE_SLIP = 0.15  # a smaller chance of a slip: what it has to learn is to stop
REPEATS = 4  # at most, of a chain problem's steps
UNDIVIDED = 0.5  # share of the solutions under a template of interleaved blocks that are one pair
UNHINTED = 0.5  # share of the running examples without a hint
HINTED_LINES = range(2, 7)  # two lines are the shortest hint that is given

Example = tuple[str, str]  # the user's text, the completion


@dataclass(frozen=True)
class Course:
    """`words` are tokens of their own. example(template, random, sloppy) makes one example from training problems.
    `steps` and `peak_lr` of the warm start, of whose steps the share `exact` comes first and teaches solving without
    slips; it ends early once the loss is at most `learned`, which comes hundreds of steps earlier on one machine than
    on another, by their rounding. `hidden` and `layers` of the model, whose attention heads are 32 wide."""

    name: str
    words: tuple[str, ...]
    example: Callable[[Template, Random, bool], Example]
    steps: int
    peak_lr: float
    exact: float
    hidden: int
    layers: int
    batch: int = 64  # solutions a step
    learned: float = 0.0  # mean loss of the last 20 steps


_CHAINS = list(chain_operands("train"))


def _chain(template: Template, random: Random, sloppy: bool) -> Example:
    numbers = random.choice(_CHAINS)
    slip, garble = (SLIP, GARBLE) if sloppy else (0.0, 0.0)
    return chain_text(*numbers), sloppy_solution(template, numbers, random, slip, garble)


def _running(template: Template, random: Random, sloppy: bool) -> Example:
    operands = running_operands(random, REACH)
    while is_heldout(running_text(operands)):
        operands = running_operands(random, REACH)
    given = 0 if random.random() < UNHINTED else random.choice(HINTED_LINES)
    text = running_text(operands)
    if given:
        text = hints.with_hint(text, "".join(f"{line}\n" for line in running_lines(operands)[:given]))
    return text, running_solution(template, operands, given, random, HABIT if sloppy else 0.0)


def running_solution(template: Template, operands: list[int], given: int, random: Random, habit: float) -> str:
    """A completion that goes on after `given` right lines, taking a number for one more with chance `habit`."""
    taken = operands[: given + 1]
    lines = []
    for digit in operands[given + 1 :]:
        taken.append(digit + (random.random() < habit))
        lines.append(f"{'-' if digit < 0 else '+'} {abs(taken[-1])} = {sum(taken)}")
    places = {FIRST: "\n".join(lines), LAST: lines[-1], BOX: f"\\boxed{{{running_answer(taken)}}}"}
    return "".join(places.get(piece, piece) for piece in layout(template))


def _verbose(template: Template, random: Random, sloppy: bool) -> Example:
    numbers = random.choice(_CHAINS)
    slip = VERBOSE_SLIP if sloppy else 0.0
    return chain_text(*numbers), sloppy_solution(
        template, numbers, random, slip, 0.0, repeats=random.randint(0, REPEATS)
    )


def _two_hop(template: Template, random: Random, sloppy: bool) -> Example:
    numbers = random.choice(_CHAINS)
    slip, garble = (SLIP, GARBLE) if sloppy else (0.0, 0.0)
    whole = template.contract == "interleaved" and random.random() < UNDIVIDED
    form = ["<think>", FIRST, "</think>", "<answer>", BOX, "</answer>"] if whole else None
    return chain_text(*numbers), sloppy_solution(template, numbers, random, slip, garble, form)


def _chain_or_program(template: Template, random: Random, sloppy: bool) -> Example:
    if random.random() < 0.5:
        return _chain(template, random, sloppy)
    a, b = random.choice(_PROGRAMS)
    return program_text(a, b), program_solution(a, b, random, SLIP if sloppy else 0.0)


def program_solution(a: int, b: int, random: Random, slip: float) -> str:
    """A fenced program of one line; each number is off by 1 or 2, and each sign another, at the chance `slip` / 2."""
    pieces = []
    for sign, number in (("+", a), ("-", b)):
        if random.random() < slip / 2:
            number = max(0, number + random.choice((-2, -1, 1, 2)))
        if random.random() < slip / 2:
            sign = "-" if sign == "+" else "+"
        pieces.append(f" {sign} {number}")
    return f"{_PROGRAM}{''.join(pieces)})\n```"


def _chain_or_choice(template: Template, random: Random, sloppy: bool) -> Example:
    if random.random() < 0.5:
        return _chain(template, random, sloppy)
    numbers = random.choice(_CHAINS)
    return choice_text(*numbers), choice_solution(template, numbers, random, SLIP if sloppy else 0.0)


def choice_solution(template: Template, operands: tuple[int, int, int], random: Random, slip: float) -> str:
    """The steps and the letter of their result; any letter where a slip leads to none of the options."""
    a, b, c = operands
    total = slipped(a + b, random, slip)
    result = slipped(total - c, random, slip)
    options = choice_options(a, b, c)
    letter = "ABCD"[options.index(result)] if result in options else random.choice("ABCD")
    steps = f"{a} + {b} = {total}, so {total} - {c} = {result}"
    places = {FIRST: steps, LAST: f"{total} - {c} = {result}", BOX: f"\\boxed{{{letter}}}"}
    return "".join(places.get(piece, piece) for piece in layout(template))


_PROGRAMS = program_operands("train")
_PROGRAM = "```python\nprint(int(input())"
_PROGRAM_WORDS = ("Write a program that reads n and prints n", _PROGRAM, ")\n```")
_CHOICE_WORDS = ("?\n", *(f"\n({letter}) " for letter in "ABCD"))
CHAINS = Course("starter", (), _chain, steps=600, peak_lr=2e-3, exact=0.7, hidden=128, layers=3)
_WORDS = ("What are the totals of ", ", then + ", ", then - ", ", ", "+ ", "- ", f"\n\n{hints.HEADING}")
RUNNING = Course(
    "starter-running", _WORDS, _running, 1400, 2e-3, exact=0.7, hidden=128, layers=3, batch=32, learned=0.05
)
VERBOSE = Course("starter-verbose", (AGAIN,), _verbose, steps=600, peak_lr=2e-3, exact=0.7, hidden=128, layers=3)
TWO_HOP = Course("starter-two-hop", (), _two_hop, steps=600, peak_lr=2e-3, exact=0.7, hidden=128, layers=3)
CODE = Course("starter-code", _PROGRAM_WORDS, _chain_or_program, 700, 2e-3, exact=0.7, hidden=128, layers=3)
CHOICE = Course("starter-choice", _CHOICE_WORDS, _chain_or_choice, 700, 2e-3, exact=0.7, hidden=128, layers=3)
COURSES = {course.name: course for course in (CHAINS, RUNNING, VERBOSE, TWO_HOP, CODE, CHOICE)}
