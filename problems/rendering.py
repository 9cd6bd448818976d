"""A problem under a template as the text and the token ids that the model sees, in either chat format.

ChatML is written here, whatever the model. With `templates.chat = "model"` the tokenizer's own chat template writes the
turns, or that of a file of one's own; then the prefill is appended to its assistant header. Three habits of such
templates are met:

* it refuses or drops the system message (Gemma): the system text goes before the problem, in the user's turn;
* it already opens the answer as the prefill would (`<think>` of R1-like models): the prefill is not written twice;
* it opens the answer with a marker that the template pays for: that marker can't be earned, and the run is told.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.protocol.runtime.model_folder import tokenizer_file
from chorus.protocol.templates.template import Template, messages, opening, render_chatml

if TYPE_CHECKING:  # it takes seconds, and who only asks for help needs none
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger("chorus.learner")
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")  # a tag of transformers' own

_PROBLEM = "Tom has 3 apples, and Ann has\n\n  $a_1 = x^2 < 7$ of them & more. How many are there?"
_ANY = Template(name="any", category="free-form", system="Solve the problem.", answer_place="anywhere")


class Renderer:
    """`chat`: "chatml", "model", or a chat template's file; `arguments` are told to the chat template.

    Raises CannotGoOn where there is no chat template to use, or where it does not know an argument.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, chat: str, arguments: Mapping[str, Any] | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.chat = chat
        self._arguments = dict(arguments or {})
        self._warned: set[str] = set()
        self._written = read_chat_template(chat)
        if chat == "model" and not tokenizer.chat_template:
            raise CannotGoOn(
                f"templates.chat is 'model', but the tokenizer of {tokenizer.name_or_path} has no chat template; "
                "set templates.chat = 'chatml'"
            )
        known = self._written or (tokenizer.get_chat_template() if chat == "model" else "")
        for name in self._arguments:
            if not re.search(rf"\b{re.escape(name)}\b", known):
                raise CannotGoOn(
                    f"templates.chat_arguments: the chat template ({chat}) never reads {name!r}, so it would change "
                    "nothing: remove it, or mend its name"
                )
        if chat != "chatml":
            self._check_problem_arrives()

    def ids(self, template: Template, problem: str, begun: str = "") -> list[int]:
        """The prompt's token ids, prefill included; special tokens are those that the chat format wrote.

        begun: of the answer's reasoning; it follows the tag that opens it. Raises CannotGoOn for a problem that can't
        be written so.
        """
        try:
            given = opening(template) + begun if begun else ""
            return self.tokenizer.encode(self.text(template, problem) + given, add_special_tokens=False)
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
        except TemplateError:  # "System role not supported", "roles must alternate"
            opened = ""
        try:
            if not opened or template.system.strip() not in opened:
                system = f"{template.system.strip()}\n\n" if template.system else ""
                turns = [{"role": "user", "content": f"{system}{turns[-1]['content']}"}]
                opened = self._apply(turns, header=True)
            header = opened.removeprefix(self._apply(turns, header=False))
        except TemplateError as error:
            raise CannotGoOn(
                f"templates.chat {self.chat}: the chat template refuses one user turn ({first_line(error)}); mend it, "
                "or set templates.chat = 'chatml'"
            ) from None
        self._warn(template, header)
        prefill = template.prefill
        return opened if prefill and header.rstrip().endswith(prefill.rstrip()) else opened + prefill

    def _check_problem_arrives(self) -> None:
        """A chat template that leaves out or changes what the user says would ask something else, or nothing."""
        try:
            text = self.text(_ANY, _PROBLEM)
        except (TypeError, ValueError, TemplateError) as error:
            raise CannotGoOn(
                f"templates.chat {self.chat}: the chat template can't be used ({first_line(error)}); mend it"
            ) from None
        if _PROBLEM not in text:
            raise CannotGoOn(
                f"templates.chat {self.chat}: the chat template makes {text!r:.60} of {_PROBLEM!r:.60}, which "
                "does not hold it as it is; write the messages' `content`, or set templates.chat = 'chatml'"
            )

    def _apply(self, turns: list[dict[str, str]], header: bool) -> str:
        rendered: Any = self.tokenizer.apply_chat_template(
            turns, chat_template=self._written, tokenize=False, add_generation_prompt=header, **self._arguments
        )
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


def read_chat_template(chat: str) -> str | None:
    """The text of the chat template that `chat` names as a file; None for `chatml` and `model`. Raises CannotGoOn."""
    if chat in ("chatml", "model"):
        return None
    try:
        text = Path(chat).read_text(encoding="utf-8")
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(_GENERATION.sub("", text))
    except (OSError, UnicodeDecodeError) as error:
        raise CannotGoOn(f"templates.chat {chat}: can't be read ({first_line(error)}); give a text file") from None
    except TemplateError as error:
        raise CannotGoOn(f"templates.chat {chat}: no Jinja template ({first_line(error)}); mend it") from None
    return text


def stop_tokens(path: str, tokenizer: PreTrainedTokenizerFast, vocabulary: int) -> list[int]:
    """The ids that end an answer: all of the model's generation config (of its config, where there is none) and the
    tokenizer's own. What the model's head does not reach is left out."""
    from transformers import AutoConfig, GenerationConfig

    try:
        named = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # no generation_config.json
        named = getattr(AutoConfig.from_pretrained(path).get_text_config(), "eos_token_id", None)
    found: list[Any] = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
    return sorted({id for id in found if isinstance(id, int) and 0 <= id < vocabulary})


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
