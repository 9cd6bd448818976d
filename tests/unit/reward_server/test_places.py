"""The offsets that an explanation gives: what the ladder read of a completion, and where the answer stands in it."""

import pytest

from chorus.reward_server.graders.extraction import extract
from chorus.reward_server.graders.text import extract_words


@pytest.mark.parametrize("mode", ["train", "paper", "strict"])
@pytest.mark.parametrize(
    ("completion", "read"),
    [
        (r"\boxed{7}", r"\boxed{7}"),
        ("<answer> \\boxed{7} </answer> then \\boxed{8}", "<answer> \\boxed{7}"),
        ("<|im_start|>user\n1<|im_start|>assistant\n \\boxed{7}<|im_end|>\n", "\\boxed{7}"),
        ("", ""),
        ("</answer>", ""),
    ],
)
def test_read_span_is_what_the_cuts_left(completion, read, mode):
    found = extract(completion, mode)
    assert completion[slice(*found.read)].strip() == read


@pytest.mark.parametrize(
    ("completion", "before", "raw"),
    [
        ("\\boxed{5} is 5 indeed", "\\boxed{", "5"),
        ("1 or \\boxed 7 or 7", "1 or \\boxed ", "7 or 7"),
        ("the answer is 5, and 5", "the answer is ", "5, and 5"),
        ("final answer is 4", "final answer is ", "4"),
        ("4 4 答案是4\n\n4", "4 4 答案是", "4"),
        ("The final answer is $4$. I hope it is. 4", "The final answer is $", "4"),
        ("1 and 2 and 12", "1 and 2 and ", "12"),
    ],
)
def test_paper_mode_points_at_the_place_that_its_rung_read(completion, before, raw):
    found = extract(completion, "paper")
    assert found.start == len(before)
    assert completion[found.start : found.end] == raw


def test_paper_mode_gives_no_place_for_a_number_that_stands_there_otherwise():
    found = extract("it costs 1,234", "paper")
    assert (found.text, found.start, found.end) == ("1234", None, None)


@pytest.mark.parametrize(
    ("completion", "text", "start"),
    [("B or C?\nI say\n(B)\n", "B", 15), ("B\nParis in France \n", "Paris in France", 2), ("**C**.", "C", 2)],
)
def test_a_last_line_has_its_place(completion, text, start):
    found = extract_words(completion, "train")
    assert (found.rung, found.text, found.start) == ("last_line", text, start)
    assert completion[found.start : found.end] == text
