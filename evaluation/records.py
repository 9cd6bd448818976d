"""An evaluation's folder: what was asked for, and every graded answer as it came.

    eval.json       the specification; an evaluation with another one refuses the folder
    answers.jsonl   a line a problem and run, appended when its samples are graded
    sittings.jsonl  a line each time the command ended: how long it took, how many answers it added
    summary.json    the figures (evaluation/summary.py)

A killed evaluation leaves whole lines, and at most one torn one, which is dropped: whoever comes next asks only
what has no line. One process at a time: the folder is locked while it is open.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chorus.protocol.run_folder.files import read_lines, write_json
from chorus.protocol.runtime.exits import CannotGoOn

Key = tuple[str, str, int]  # benchmark, problem id, run


class Spec(BaseModel):
    """All that a figure depends on. `n`: runs over all problems where greedy, samples a problem where sampled.

    `problems`: by benchmark a digest of texts, kinds and golds. `prompts`: a digest of all prompts' token ids, so of
    template, chat format and tokenizer at once. `weights`: of the model folder's files by name, size and time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    weights: str
    suite: str
    problems: dict[str, str]
    prompts: str
    titles: dict[str, str]
    expected: dict[str, int] = Field(description="by benchmark its published size; 0: unknown")
    template: str
    decoding: Literal["greedy", "sampled"]
    n: int = Field(ge=1)
    temperature: float = Field(ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(ge=1)
    context: int
    dtype: str
    mode: Literal["train", "paper", "strict"]
    seed: int
    limit: int | None = None
    hint_ratio: float = Field(default=0.0, ge=0, lt=1, description="share of the reference solution that was given")
    allow_answer_in_hint: bool = Field(default=False, description="hints that hold the answer were given, too")
    run: str | None = Field(default=None, description="name of the training run that the model comes from")
    step: int | None = Field(default=None, description="its checkpoint")

    @property
    def runs(self) -> int:
        """Passes over the problems."""
        return self.n if self.decoding == "greedy" else 1

    @property
    def samples(self) -> int:
        """Samples of one request."""
        return 1 if self.decoding == "greedy" else self.n


class Store:
    """The folder of one evaluation, open for writing. A context manager; raises CannotGoOn for a folder in use,
    or one that holds another evaluation."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        self.folder = folder
        self._spec = spec
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("w")
        except OSError as error:
            raise CannotGoOn(f"--out {folder}: {error.strerror}; give a folder that can be written") from None

    def __enter__(self) -> Self:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise CannotGoOn(
                f"{self.folder}: another evaluation is writing there; wait for it, or give --out"
            ) from None
        self._check_spec()
        path = self.folder / "answers.jsonl"
        _drop_torn_line(path)
        self.done: set[Key] = {key_of(record) for record in read_lines(path)}
        self._answers = path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._lock.close()

    def _check_spec(self) -> None:
        path = self.folder / "eval.json"
        if not path.exists():
            write_json(path, self._spec.model_dump(mode="json"))
            return
        before = read_spec(self.folder).model_dump(mode="json")
        after = self._spec.model_dump(mode="json")
        changed = [f"{key} is {after[key]!r}, there {before[key]!r}" for key in after if after[key] != before[key]]
        if changed:
            raise CannotGoOn(
                f"{self.folder} holds another evaluation ({'; '.join(changed)}); give --out with a new folder, or "
                "ask as before to go on with it"
            )

    def append(self, record: Mapping[str, Any]) -> None:
        """Write down one problem's graded samples of one run."""
        self._answers.write(json.dumps(record, ensure_ascii=True) + "\n")
        self._answers.flush()
        self.done.add(key_of(record))


def key_of(record: Mapping[str, Any]) -> Key:
    return record["benchmark"], record["id"], record["run"]


def read_spec(folder: Path) -> Spec:
    """Raises CannotGoOn for a folder that is no evaluation's."""
    path = folder / "eval.json"
    try:
        return Spec.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
        raise CannotGoOn(f"{path}: can't be read as an evaluation ({reason}); give another folder") from None


def _drop_torn_line(path: Path) -> None:
    """A kill can leave half a line; the next one must not be glued to it."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            file.truncate(whole)
            os.fsync(file.fileno())
