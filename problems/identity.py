"""Which problems are one problem, and which only bear the same name.

A row that brings an `id` keeps it. Any other is called `SOURCE#DIGEST`: its whole source as the recipe names it, and
the digest of the row. So two files of one name stay apart, and a row keeps its name when another is put before it.

    same id, same content          merged: one problem, counted
    same id, another content       within one source refused; from a later source it is called SOURCE:ID, counted
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from typing import Any

from chorus.protocol.messages import Problem

log = logging.getLogger("chorus.problems")


def id_of_row(source: str, row: Any) -> str:
    """The id of a row that brings none. `source`: the spec without its options."""
    return f"{source}#{_digest(row)}"


def content(problem: Problem) -> str:
    """Digest of all that a problem is, wherever it stands and whatever it is called."""
    fields = problem.model_dump(exclude={"id", "source"}, exclude_none=True)
    if problem.kind == "reasoning_gym":  # its first gold is the item's name, which every seed gives anew
        fields["answers"] = problem.answers[1:]
    return _digest(fields)


def merge(problems: Iterable[Problem], source: str, repeated: int = 0) -> list[Problem]:
    """Each id once: within a source only equal rows have equal ids (problems/sources.py refuses the others).

    `repeated`: how many rows were left out before, for the same reason.
    """
    found: dict[str, Problem] = {}
    n = repeated
    for problem in problems:
        found.setdefault(problem.id, problem)
        n += 1
    if n > len(found):
        log.warning("%s: %d of %d rows repeat another one and are left out", source, n - len(found), n)
    return list(found.values())


def gather(sources: Iterable[tuple[str, list[Problem]]], by_id: bool = False) -> list[Problem]:
    """The problems of several sources, in order.

    Raises ValueError where something else goes by their ids (`by_id`) and one id names two problems.
    """
    found: dict[str, Problem] = {}
    for source, problems in sources:
        merged = renamed = 0
        for problem in problems:
            named = problem
            while (other := found.get(named.id)) is not None and content(other) != content(problem):
                if by_id:
                    raise ValueError(
                        f"{source}: id {problem.id!r} names another problem in an earlier source, and "
                        "curriculum.pass_rates goes by ids; make the ids unique and measure again"
                    )
                named = named.model_copy(update={"id": f"{source}:{named.id}"})
            merged += other is not None
            renamed += other is None and named is not problem
            found.setdefault(named.id, named)
        if merged:
            log.warning("%s: %d of its problems stand in an earlier source too and are left out", source, merged)
        if renamed:
            log.warning(
                "%s: %d of its ids name other problems in an earlier source; here they are called %s:ID",
                *(source, renamed, source),
            )
    return list(found.values())


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
