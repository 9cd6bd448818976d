"""A few rows in the form of each public data set as it is downloaded; the problems are ours."""

from __future__ import annotations

import json
from typing import Any

Row = dict[str, Any]


def _user(text: str) -> list[Row]:
    return [{"content": text, "role": "user"}]


def _verl(prompt: str, gold: str, source: str, ability: str = "math") -> Row:
    return {
        "data_source": source,
        "prompt": _user(prompt),
        "ability": ability,
        "reward_model": {"ground_truth": gold, "style": "rule"},
        "extra_info": {"index": 0, "split": "train"},
    }


DAPO_BEFORE = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n"
)
DAPO_AFTER = '\n\nRemember to put your answer on its own line after "Answer:".'

GSM8K: list[Row] = [
    {
        "question": "Ida bakes 12 rolls and sells a third of them. How many are left?",
        "answer": "She sells 12/3 = <<12/3=4>>4 rolls.\nSo 12 - 4 = <<12-4=8>>8 are left.\n#### 8",
    },
    {
        "question": "A pen costs $3 and a book $9. What do 2 pens and 3 books cost?",
        "answer": "The pens cost 2*3 = $<<2*3=6>>6.\nThe books cost 3*9 = $<<3*9=27>>27.\n"
        "6+27 = $<<6+27=33>>33.\n#### 33",
    },
    {
        "question": "A hall has 40 rows of 30 seats. How many seats?",
        "answer": "40*30 = <<40*30=1200>>1,200\n#### 1,200",
    },
]
MATH: list[Row] = [
    {
        "problem": "What is $\\frac{1}{2} + \\frac{1}{3}$?",
        "level": "Level 2",
        "type": "Prealgebra",
        "solution": "With sixths, $\\frac{3}{6} + \\frac{2}{6}$ is $\\boxed{\\frac{5}{6}}$.",
    },
    {
        "problem": "Which $x > 0$ solves $x^2 = 49$?",
        "level": "Level ?",
        "type": "Algebra",
        "solution": "It is not $\\boxed{-7}$, which is negative, but\n$\\boxed{7}$.",
    },
]
DAPO: list[Row] = [
    _verl(f"{DAPO_BEFORE}What is the third prime above 20?{DAPO_AFTER}", "31", "math_dapo", "MATH"),
    _verl(f"{DAPO_BEFORE}Let $n = 6$.\n\nFind $n!$ modulo $7$.{DAPO_AFTER}", "6", "math_dapo", "MATH"),
]
SKYWORK: list[Row] = [
    _verl(
        "Which digit follows $3$ in $\\pi$?\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
        json.dumps(["1"]),
        "train-math-ours",
    ),
    _verl("Half of $\\sqrt{2}$?", json.dumps(["\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}"]), "train-math-ours"),
    _verl("Print the sum of two numbers.", json.dumps({"inputs": ["1 2"], "outputs": ["3"]}), "train-code", "code"),
]
VERL: list[Row] = [
    _verl(
        "Tom has 3 apples and buys 4. How many has he? "
        'Let\'s think step by step and output the final answer after "####".',
        "7",
        "openai/gsm8k",
    ),
    _verl(
        "What is $2^{10}$? Let's think step by step and output the final answer within \\boxed{}.",
        "1024",
        "MATH-lighteval",
    ),
]
OPENR1: list[Row] = [
    {
        "problem": "How many diagonals has a hexagon?",
        "solution": "$\\frac{6 \\cdot 3}{2} = 9$",
        "answer": "9",
        "problem_type": "Geometry",
        "question_type": "math-word-problem",
        "source": "olympiads",
        "uuid": "6a0f",
        "is_reasoning_complete": [True, False],
        "generations": ["<think>six corners</think> \\boxed{9}", "<think>"],
        "correctness_math_verify": [True, False],
        "messages": _user("How many diagonals has a hexagon?"),
    }
]


def _numina(problem: str, answer: str | None, valid: str = "Yes", solved: str = "Yes") -> Row:
    return {
        "problem": problem,
        "solution": "As one sees.",
        "answer": answer,
        "problem_type": "Number Theory",
        "question_type": "proof" if answer == "proof" else "math-word-problem",
        "problem_is_valid": valid,
        "solution_is_valid": solved,
        "source": "olympiads",
        "synthetic": False,
    }


NUMINA: list[Row] = [
    _numina("Find the last digit of $3^4$.", "1"),
    _numina("Show that $n^2 + n$ is even.", "proof"),
    _numina("Find all such numbers.", "notfound"),
    _numina("Find the sum in the picture.", "12", valid="Incomplete"),
    _numina("Find $5 \\cdot 5$.", "26", solved="No"),
    _numina("Find $\\gcd(12, 18)$.", "6"),
]
BIGMATH: list[Row] = [
    {
        "problem": "A train goes 60 km in 40 minutes. How fast is it, in km/h?",
        "answer": "90",
        "source": "orca_math",
        "domain": ["Mathematics -> Applied Mathematics -> Math Word Problems", "Mathematics -> Algebra"],
        "llama8b_solve_rate": 0.71875,
    },
    {
        "problem": "Simplify $\\sqrt{12}$.",
        "answer": "2\\sqrt{3}",
        "source": "cn_k12",
        "domain": ["Mathematics -> Algebra"],
        "llama8b_solve_rate": None,
    },
]
DEEPSCALER: list[Row] = [
    {"problem": "What is the sum of the first 10 odd numbers?", "answer": "100", "solution": "$10^2$"},
    {"problem": "Solve $3x = 2$.", "answer": "\\frac{2}{3}", "solution": ""},
]
AIME: list[Row] = [
    {"ID": "2099-I-1", "Problem": "Find $9 \\cdot 9$.", "Solution": "$81$, so $\\boxed{081}$.", "Answer": 81},
    {"ID": "2099-I-2", "Problem": "Find $2^8$.", "Solution": "$\\boxed{256}$", "Answer": 256},
]
MMLU: list[Row] = [
    {"question": "Which is prime?", "subject": "number_theory", "choices": ["21", "22", "23", "24"], "answer": 2},
    {"question": "Which is even?", "subject": "number_theory", "choices": ["8", "9", "11", "13"], "answer": 0},
]
ARC: list[Row] = [
    {
        "id": "ours_1",
        "question": "What melts at 0 degrees Celsius?",
        "choices": {"text": ["iron", "ice", "sand"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    },
    {
        "id": "ours_2",
        "question": "Which one flies?",
        "choices": {"text": ["a trout", "a mole", "a swift", "a fox"], "label": ["1", "2", "3", "4"]},
        "answerKey": "3",
    },
]
GPQA: list[Row] = [
    {
        "Question": f"Which number is {n} times {n}?",
        "Correct Answer": f"{n * n}\n",
        "Incorrect Answer 1": f"{n + n}",
        "Incorrect Answer 2": f"{n * n + 1}",
        "Incorrect Answer 3": f"{n * n - 1}",
        "Explanation": "Multiply.",
        "High-level domain": "Physics",
    }
    for n in range(5, 25)
]
FORMS = {
    "gsm8k": GSM8K,
    "math": MATH,
    "dapo": DAPO,
    "skywork": SKYWORK,
    "verl": VERL,
    "openr1": OPENR1,
    "numina": NUMINA,
    "bigmath": BIGMATH,
    "deepscaler": DEEPSCALER,
    "aime": AIME,
    "mmlu": MMLU,
    "arc": ARC,
    "gpqa": GPQA,
}
