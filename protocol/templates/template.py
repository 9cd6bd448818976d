"""A reasoning template: what a prompt says, and the markers that its format contract counts.

A template turns a problem into a ChatML prompt; `score.py` scores the *form* of a completion (never its answer),
`load.py` reads the TOML files, `sampling.py` draws. Source of the sampling rule, the layouts and the format rewards:
prompt augmentation, arXiv 2602.03190.
"""

import json
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Category = Literal["deepseek", "free-form", "reflection", "explicit-cot"]
Contract = Literal["count", "strict", "interleaved"]


def _no_chat_markup(text: str) -> str:
    if found := re.search(r"<\|.*?\|>", text):
        raise ValueError(f"{found[0]!r} belongs to a chat format, which is added around these texts; remove it")
    return text


def _no_place_for_the_problem(text: str) -> str:
    if found := _PLACE.search(text):
        raise ValueError(f"{found[0]!r} would reach the model as it stands: the problem follows by itself; remove it")
    return text


def _no_pattern(marker: str) -> str:
    if found := _PATTERN.search(marker):
        raise ValueError(
            f"{found[0]!r} is of a regular expression, and a marker is looked for letter by letter; list the texts "
            "themselves, such as <answer> and </answer>"
        )
    return marker


_PLACE = re.compile(r"(?<!\w)\{{1,2}\s*(?:problem|question|prompt|input|query)\s*\}{1,2}", re.IGNORECASE)
# Not so of LaTeX's commands, and of Markdown's bold after a full stop.
_PATTERN = re.compile(r"\.[*+](?!\*)|\\[dDsSwWb](?![A-Za-z])|\(\?[:=!P]")
Text = Annotated[str, AfterValidator(_no_chat_markup), AfterValidator(_no_place_for_the_problem)]


class Template(BaseModel):
    """One way of asking: the texts around a problem and the markers that a completion must hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]  # a file name and a metric's label
    category: Category
    system: Text
    user_suffix: Text = ""  # follows the problem directly: it brings its own newline
    prefill: Text = ""  # opens the assistant's turn; part of the prompt, never of the completion
    markers: list[
        Annotated[str, Field(min_length=1), AfterValidator(_no_chat_markup), AfterValidator(_no_pattern)]
    ] = []  # empty: the format score is always 1.0
    contract: Contract = "count"
    answer_place: str  # where a reader finds the boxed answer, in words

    @field_validator("markers")
    @classmethod
    def _can_all_occur_once(cls, markers: list[str], info: ValidationInfo) -> list[str]:
        for i, marker in enumerate(markers):
            if marker in markers[:i]:
                raise ValueError(f"{marker!r} is listed twice; each marker counts once")
            if marker in info.data.get("prefill", ""):
                raise ValueError(
                    f"{marker!r} stands in the prefill, which is prompt and not completion: writing it again would "
                    "be a mistake, so it can't be a marker",
                )
        return markers

    @field_validator("contract")
    @classmethod
    def _has_something_to_check(cls, contract: Contract, info: ValidationInfo) -> Contract:
        if contract != "count" and not info.data.get("markers", True):
            raise ValueError(f"a contract that is {contract} needs markers; list them, or remove `contract`")
        return contract


def opening(template: Template) -> str:
    """The marker that opens the reasoning, which a completion has to write itself; empty where the prefill has opened
    it, or where the template has no such tag."""
    first = template.markers[0] if template.markers else ""
    tag = re.match(r"<([A-Za-z][\w-]*)>", first)
    return first if tag and any(f"</{tag[1]}>" in marker for marker in template.markers) else ""


def messages(template: Template, problem: str) -> list[dict[str, str]]:
    """The chat messages of a prompt, without the prefill (which opens the assistant's turn).

    A template whose system text is empty has no system turn.
    """
    system = [{"role": "system", "content": template.system}] if template.system else []
    return [*system, {"role": "user", "content": problem + template.user_suffix}]


def render_chatml(template: Template, problem: str) -> str:
    """The whole prompt as ChatML text: system block, user block, assistant header, prefill."""
    blocks = "".join(
        f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages(template, problem)
    )
    return f"{blocks}<|im_start|>assistant\n{template.prefill}"


def as_jinja(template: Template) -> str:
    """The same prompt as a chat template, for who serves the policy: of its messages the user's turns count, and
    answers between them. Other system texts than the template's own are passed over, as in training."""
    system, suffix, prefill = (
        json.dumps(text, ensure_ascii=False)
        for text in (
            f"<|im_start|>system\n{template.system}<|im_end|>\n" if template.system else "",
            f"{template.user_suffix}<|im_end|>\n",
            f"<|im_start|>assistant\n{template.prefill}",
        )
    )
    return (
        "{{- " + system + " }}"
        '{%- for message in messages %}{%- if message.role == "user" %}'
        '{{- "<|im_start|>user\\n" + message.content + ' + suffix + " }}"
        '{%- elif message.role == "assistant" %}'
        '{{- "<|im_start|>assistant\\n" + message.content + "<|im_end|>\\n" }}'
        "{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- " + prefill + " }}{%- endif %}\n"
    )
