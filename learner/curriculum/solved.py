"""How often each group of a stage came out right, where a stage leaves out what has become easy (AceReason,
arXiv 2505.16400).

One line of solved.jsonl a group, appended before the group's fate is told to the ledger, and once for an admission
index, whether the group is trained or dropped. What the lines say is all there is: a resumed learner reads them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from chorus.protocol.run_folder.files import append_line, write_whole
from chorus.protocol.runtime.exits import CannotGoOn


class Solved:
    """`open` it on the run's solved.jsonl before the run admits anything."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[str, float]] = {}
        self._file: Path | None = None

    def open(self, file: Path) -> None:
        """Take up what earlier learners of this run have observed. Raises CannotGoOn for a line that is no observation;
        one that a crash cut short is forgotten."""
        self._file = file
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        whole, _, rest = text.rpartition("\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                fields = json.loads(line)
                self._seen[int(fields["index"])] = str(fields["id"]), float(fields["accuracy"])
            except (ValueError, TypeError, KeyError) as error:
                raise CannotGoOn(f"{file}:{number}: no observation ({error}); remove the line") from None
        if rest:
            write_whole(file, f"{whole}\n" if whole else "")

    def observe(self, index: int, problem_id: str, accuracy: float) -> None:
        if index in self._seen:
            return
        if self._file is not None:
            append_line(self._file, {"index": index, "id": problem_id, "accuracy": accuracy})
        self._seen[index] = problem_id, accuracy

    def easy(self, since: int, is_easy: Callable[[float], bool]) -> list[str]:
        """The problems whose newest group, of those admitted from `since` on, is."""
        newest = {id: accuracy for index, (id, accuracy) in sorted(self._seen.items()) if index >= since}
        return sorted(id for id, accuracy in newest.items() if is_easy(accuracy))
