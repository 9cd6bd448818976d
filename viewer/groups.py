"""One group and one problem as pages show them: the prompt as the model saw it, token by token, and what came when."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from chorus.problems.hints import HEADING
from chorus.protocol.config.load import load_config
from chorus.protocol.run_folder.checkpoints import read_manifest, whole
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.hold import is_held
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.model_folder import load_tokenizer
from chorus.protocol.templates.template import Template, opening
from chorus.viewer.queries import SHOWN
from chorus.viewer.store import Rollouts

_SPACE = "▁"  # how SentencePiece writes the space before a word
_UNKNOWN = "\ufffd"
_ARRAYS = ("token_ids", "logprobs", "versions", "token_entropies", "token_ratios", "trained_tokens", "learner_logprob")
_TIMES = ("admitted_at", "started_at", "generated_at", "graded_at", "chosen_at")
_ASKED = (
    "prompt",
    "prompt_ids",
    "temperature",
    "max_tokens",
    "group_size",
    "attempt",
    "entry",
    "epoch",
    "tests",
    "row",
)
_OF_GROUP = (
    *("step", "group", "position", "problem_id", "template", "kind", "level", "domain", "hint_ratio", "gold"),
    *("generator", *_ASKED, *_TIMES),
)


class Words:
    """Token ids of a run as pieces of text. Without a tokenizer, as the numbers that they are."""

    def __init__(self, run: RunFolder) -> None:
        self._tokenizer = None
        self.special: set[int] = set()
        self.templates: dict[str, Template] = {}
        exports = sorted(run.checkpoints.glob("step-*/huggingface/tokenizer.json"))
        paths = [str(path.parent) for path in exports[-1:]]
        with suppress(CannotGoOn):
            config = load_config(run.config, (), {})
            paths.append(config.model.path)
            self.templates = config.choose_templates()
        try:
            self._tokenizer = load_tokenizer(paths[0])
        except (CannotGoOn, OSError, ValueError, IndexError):
            return
        added = self._tokenizer.get_added_tokens_decoder()
        self.special = {id for id, token in added.items() if token.special}

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token. A character that is spread over several tokens shows as their names."""
        if self._tokenizer is None:
            return [f"⟨{id}⟩" for id in ids]
        texts = self._tokenizer.decode_batch([[id] for id in ids], skip_special_tokens=False)
        return [self._piece(id, text) for id, text in zip(ids, texts, strict=True)]

    def _piece(self, id: int, text: str) -> str:
        name = self._tokenizer.id_to_token(id) if self._tokenizer else None
        if name is None:
            return f"⟨{id}⟩"
        if _UNKNOWN in text or not text:
            return name
        return f" {text}" if name.startswith(_SPACE) and not text.startswith(" ") else text


@lru_cache(maxsize=16)
def words_of(run: RunFolder) -> Words:
    return Words(run)


def group_of(rollouts: Rollouts, step: int, group: int) -> dict[str, Any] | None:
    """All of one group; None where there is no such group."""
    columns = ", ".join(f'"{name}"' for name in dict.fromkeys((*SHOWN, *_OF_GROUP, *_ARRAYS)))
    sql = f'SELECT {columns} FROM rollouts WHERE step = ? AND "group" = ? ORDER BY sample'
    rows = rollouts.rows(sql, [step, group])
    if not rows:
        return None
    words = words_of(rollouts.run)
    return {
        **{name: rows[0][name] for name in _OF_GROUP if name not in _TIMES},
        "prompt_pieces": _prompt(words, rows[0]),
        "samples": [_sample(row, words) for row in rows],
        "timeline": timeline(rollouts.run, rows[0], rollouts.of),
        "playground": _playground(rollouts.run),
    }


def _prompt(words: Words, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The prompt's tokens; `mark`: special, hint, prefill (what of the answer the prompt wrote already), or empty."""
    ids = row["prompt_ids"]
    texts = words.pieces(ids)
    hint, prefill = _places("".join(texts), words.templates.get(row["template"]), bool(row["hint_ratio"]))
    found, at, hinted = [], 0, False
    for id, text in zip(ids, texts, strict=True):
        end = at + len(text)
        hinted = id not in words.special and (hinted or at <= hint < end)  # a special token ends the user's turn
        opened = 0 <= prefill < end and not (hinted and hint > prefill)
        mark = "special" if id in words.special else "prefill" if opened else "hint" if hinted else ""
        found.append({"text": text, "mark": mark})
        at = end
    return found


def _places(prompt: str, template: Template | None, hinted: bool) -> tuple[int, int]:
    """Where the hint begins, and where the answer does, of which the prompt wrote the beginning; -1: nowhere."""
    hint = prompt.find(HEADING) if hinted else -1
    reasoned = hinted and hint < 0 and template is not None  # the hint stands in the assistant's own reasoning
    begun = (template.prefill or (opening(template) if reasoned else "")) if template else ""
    prefill = prompt.rfind(begun) if begun else -1
    return prefill + len(begun) if reasoned and prefill >= 0 else hint, prefill


def _playground(run: RunFolder) -> str:
    """The address of the run's own verifier, whose page grades one completion; empty where the run is over."""
    url = (read_json(run.config).get("reward") or {}).get("url") or ""
    return url if url.startswith(("http://", "https://")) and is_held(run.path) else ""


def _sample(row: dict[str, Any], words: Words) -> dict[str, Any]:
    told = {name: row[name] for name in dict.fromkeys((*SHOWN, *_ARRAYS)) if name not in _OF_GROUP}
    versions = [version["step"] for version in row["versions"] for _ in range(version["tokens"])]
    return told | {"pieces": words.pieces(row["token_ids"]), "version_steps": versions}


def timeline(run: RunFolder, row: dict[str, Any], of: str) -> list[dict[str, Any]]:
    """Where the group has been: {at, who, what} in order; `at` None where nobody noted the time. of: the evaluation
    that it answers, whose groups nobody trains on."""
    step, generator = row["step"], f"generator {row['generator']}"
    events = [
        (row["admitted_at"], "learner", "admitted the task"),
        (row["started_at"], generator, f"began to sample it (attempt {row['attempt']})"),
        (row["generated_at"], generator, "had all samples"),
        (row["graded_at"], "reward server", "had graded them; committed"),
        (row["chosen_at"], "learner", f"counted it in evaluation {of}" if of else f"chose it for step {step}"),
    ]
    if of:
        return [{"at": at, "who": who, "what": what} for at, who, what in events]
    for record in run.records():
        if record["step"] == step:
            events.append((record.get("time"), "learner", f"trained step {step}"))
    for path in whole(run.checkpoints):
        manifest = read_manifest(path)
        if row["entry"] in manifest.entries.get(step, ()):
            events.append((manifest.at or None, "learner", f"checkpoint of step {manifest.step} holds it"))
    return [{"at": at, "who": who, "what": what} for at, who, what in events]


def problem_of(rollouts: Rollouts, problem: str) -> dict[str, Any]:
    """A problem over all passes and templates: a row a group, and the first right answer."""
    sql = """
        SELECT step, "group", template, epoch, hint_ratio, count(*) AS samples, avg(accuracy) AS pass_rate,
               avg(reward) AS reward, avg(format) AS format, avg(tokens) AS tokens, max(staleness) AS staleness,
               arg_min(text, sample) AS text, any_value(gold) AS gold, any_value(prompt) AS prompt
        FROM rollouts WHERE problem_id = ? GROUP BY ALL ORDER BY step, "group" LIMIT 2000"""
    groups = rollouts.rows(sql, [problem])
    columns = ", ".join(f'"{name}"' for name in SHOWN)
    order = "ORDER BY step, position, sample LIMIT 1"
    right = rollouts.rows(f"SELECT {columns} FROM rollouts WHERE problem_id = ? AND accuracy = 1 {order}", [problem])
    return {"problem_id": problem, "groups": groups, "first_right": right[0] if right else None}


def compare(one: Rollouts, other: Rollouts, steps: tuple[str, list[object]], others: tuple[str, list[object]]) -> Any:
    """Problems that both sides asked, those that changed most first. steps: a condition for each side."""
    sql = """
        SELECT problem_id, avg(accuracy) AS accuracy, avg(reward) AS reward, count(*) AS samples,
               arg_max(text, step) AS text, arg_max("group", step) AS "group", max(step) AS step
        FROM rollouts WHERE {} GROUP BY problem_id"""
    first = {row["problem_id"]: row for row in one.rows(sql.format(steps[0]), steps[1])}
    second = {row["problem_id"]: row for row in other.rows(sql.format(others[0]), others[1])}
    both = [
        {"problem_id": id, "a": first[id], "b": second[id], "gain": second[id]["accuracy"] - first[id]["accuracy"]}
        for id in first.keys() & second.keys()
        if first[id]["accuracy"] is not None and second[id]["accuracy"] is not None
    ]
    both.sort(key=lambda pair: (-abs(pair["gain"]), pair["problem_id"]))
    gained = sum(pair["gain"] > 0 for pair in both)
    lost = sum(pair["gain"] < 0 for pair in both)
    return {"problems": both[:500], "shared": len(both), "gained": gained, "lost": lost}
