"""Deliberately sloppy worked solutions of chain problems, in the layout that a template asks for.

A policy trained on them knows how to solve and how to lay out, and often fails to: that is what reinforcement
can mend. For `What is 3 + 4 - 5?` under `open-r1`, written without a slip:

    <think>
    3 + 4 = 7, so 7 - 5 = 2
    </think>
    <answer>
    \\boxed{2}
    </answer>
"""

from collections.abc import Sequence
from random import Random

from chorus.protocol.templates.template import Template

SLIP = 0.35  # chance that a step's result is off by 1 or 2
GARBLE = 0.3  # chance that one piece of the layout is left out or doubled
AGAIN = ". Once more: "
WORDS = ("What is ", " + ", " - ", " = ", ", so ", "\\boxed{")  # of the problems and the worked steps
# Places in a layout: both steps, the last step again, the boxed answer; of blocks in turn, the first step, its result.
FIRST, LAST, BOX, HOP, SUB = "first", "last", "box", "hop", "sub"

Piece = tuple[str, bool]  # the text, and whether it belongs to the layout (it may be garbled) or to the reasoning


def layout(template: Template) -> list[str]:
    """The completion's form: literal pieces in order, with the places FIRST, LAST and BOX among them.

    Derived from the markers and the prefill, so that a template of one's own gets the nearest layout.
    """
    marked = "".join(template.markers)
    if template.contract == "interleaved":
        form = ["<think>", HOP, "</think>", "<answer>", SUB, "</answer>", "<think>", LAST, "</think>", "<answer>", BOX]
        form.append("</answer>")
    elif "</check>" in marked:
        check = "<check>\nLet's verify step by step"
        form = ["<solution>\n", FIRST, "\n</solution>\n", check, ": ", LAST, "\n</check>", "\n", BOX]
    elif "\n</think>\n" in marked:
        form = ["<think>\n", FIRST, "\n</think>\n", "<answer>\n", BOX, "\n</answer>"]
    elif "</think>" in marked:
        form = ["<think>", FIRST, "</think>", " <answer>", BOX, "</answer>"]
    elif "The final answer is:" in marked:
        form = [FIRST, "\nThe final answer is: ", BOX]
    else:
        form = [FIRST, "\n", BOX]
    if form[0] == template.prefill:
        return form[1:]
    if template.prefill and not template.prefill.endswith("\n"):
        return [": ", *form]  # `Let's think step by step` runs on
    return form


def layout_pieces(template: Template) -> list[str]:
    """The literal pieces of a template's layout."""
    return [piece for piece in layout(template) if piece not in (FIRST, LAST, BOX, HOP, SUB)]


def sloppy_solution(
    template: Template,
    operands: Sequence[int],
    random: Random,
    slip: float,
    garble: float,
    form: Sequence[str] | None = None,
    repeats: int = 0,
) -> str:
    """A completion for `a + b - c` (operands a, b, c), slipping and garbling at the given chances.

    form: another layout than the template's. repeats: how often both steps are said again.
    """
    a, b, c = operands
    total = slipped(a + b, random, slip)
    result = slipped(total - c, random, slip)
    pieces: list[Piece] = []
    for place in form or layout(template):
        if place == FIRST:
            steps = f"{a} + {b} = {total}, so {total} - {c} = {result}"
            pieces.append((AGAIN.join([steps] * (1 + repeats)), False))
        elif place == HOP:
            pieces.append((f"{a} + {b} = {total}", False))
        elif place == SUB:
            pieces.append((str(total), False))
        elif place == LAST:  # worked afresh: the check may find another result than the solution
            result = slipped(total - c, random, slip)
            pieces.append((f"{total} - {c} = {result}", False))
        elif place == BOX:
            pieces.extend([("\\boxed{", True), (str(result), False), ("}", True)])
        else:
            pieces.append((place, True))
    if random.random() < garble:
        _garble(pieces, random)
    return "".join(text for text, _ in pieces)


def slipped(exact: int, random: Random, slip: float) -> int:
    """The exact result, or one that is off by 1 or 2; never negative."""
    return max(0, exact + (random.choice((-2, -1, 1, 2)) if random.random() < slip else 0))


def _garble(pieces: list[Piece], random: Random) -> None:
    """Leave out one piece of the layout, or write it twice."""
    place = random.choice([n for n, (_, is_layout) in enumerate(pieces) if is_layout])
    pieces[place : place + 1] = random.choice([[], [pieces[place]] * 2])
