"""A problem under a template as the text and the token ids that the model sees, in either chat format.

ChatML is written here, whatever the model. With `templates.chat = "model"` the tokenizer's own chat template writes the
turns; then the prefill is appended to its assistant header. Three habits of such chat templates are met:

* it refuses or drops the system message (Gemma): the system text goes before the problem, in the user's turn;
* it already opens the answer as the prefill would (`<think>` of R1-like models): the prefill is not written twice;
* it opens the answer with a marker that the template pays for: that marker can't be earned, and the run is told.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.protocol.runtime.model_folder import tokenizer_file
from chorus.protocol.templates.template import Template, messages, render_chatml

if TYPE_CHECKING:  # it takes seconds, and who only asks for help needs none
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger("chorus.learner")


class Renderer:
    """`chat`: "chatml" or "model". Raises CannotGoOn where the model has no chat template to use."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, chat: str) -> None:
        self.tokenizer = tokenizer
        self.chat = chat
        self._warned: set[str] = set()
        if chat == "model" and not tokenizer.chat_template:
            raise CannotGoOn(
                f"templates.chat is 'model', but the tokenizer of {tokenizer.name_or_path} has no chat template; "
                "set templates.chat = 'chatml'"
            )

    def ids(self, template: Template, problem: str) -> list[int]:
        """The prompt's token ids, prefill included; special tokens are those that the chat format wrote.

        Raises CannotGoOn for a problem that can't be written so.
        """
        try:
            return self.tokenizer.encode(self.text(template, problem), add_special_tokens=False)
        except (TypeError, ValueError, TemplateError) as error:
            raise CannotGoOn(
                f"the problem {problem!r:.60} can't be made a prompt under template {template.name} "
                f"({first_line(error)}); mend or remove it"
            ) from None

    def text(self, template: Template, problem: str) -> str:
        """The whole prompt, prefill included."""
        if self.chat == "chatml":
            return render_chatml(template, problem)
        turns = messages(template, problem)
        try:
            opened = self._apply(turns, header=True)
            has_system = template.system.strip() in opened
        except TemplateError:  # "System role not supported", "roles must alternate"
            opened, has_system = "", False
        if not has_system:
            turns = [{"role": "user", "content": f"{template.system.strip()}\n\n{turns[1]['content']}"}]
            opened = self._apply(turns, header=True)
        header = opened.removeprefix(self._apply(turns, header=False))
        self._warn(template, header)
        prefill = template.prefill
        return opened if prefill and header.rstrip().endswith(prefill.rstrip()) else opened + prefill

    def _apply(self, turns: list[dict[str, str]], header: bool) -> str:
        rendered: Any = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=header)
        return rendered

    def _warn(self, template: Template, header: str) -> None:
        paid = [marker for marker in template.markers if marker.strip() in header]
        if paid and template.name not in self._warned:
            self._warned.add(template.name)
            log.warning(
                "template %s pays for %r, but the model's chat template opens the answer with it: a completion can "
                "only write it a second time; use a template with that prefill, or templates.chat = 'chatml'",
                *(template.name, paid[0]),
            )


def load_tokenizer(path: str) -> PreTrainedTokenizerFast:
    """The tokenizer as tokenizer.json says, not as the architecture's default class would have it."""
    folder = tokenizer_file(path).parent
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises nothing more special
        raise CannotGoOn(
            f"model.path {path}: its tokenizer can't be loaded ({first_line(error)}); save its fast tokenizer anew"
        ) from None
