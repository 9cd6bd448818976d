"""How far a completion keeps a template's format contract: the markers it holds, never its answer.

A contract counts: each marker that occurs exactly once pays its share, wherever it stands. That is the paper's (prompt
augmentation, arXiv 2602.03190). A template of one's own may be `contract = "strict"`: 1 for a completion that holds
every marker once, in the listed order, with every tag of the markers opened and closed once, else 0. Or it may be
`contract = "interleaved"`: 1 for a completion of think and answer blocks in turn (interleaved.py), else 0.
"""

import re
from collections import Counter
from itertools import pairwise

from chorus.protocol.templates.interleaved import blocks
from chorus.protocol.templates.template import Template

_TAG = re.compile(r"<(/?)([A-Za-z][\w-]*)>")


def marker_counts(template: Template, completion: str) -> dict[str, int]:
    """Marker to the number of its non-overlapping occurrences in the completion (without the prefill)."""
    return {marker: completion.count(marker) for marker in template.markers}


def format_score(template: Template, completion: str) -> float:
    """In [0, 1]; 1.0 for a template without markers.

    Counting contract: the share of the markers that occur exactly once. Order and nesting do not count, and
    neighbouring markers may share a newline: each is counted on its own. Strict and interleaved contracts: 1.0 or 0.0.
    """
    if template.contract == "interleaved":
        return 0.0 if isinstance(blocks(template.prefill + completion), str) else 1.0
    if not template.markers:
        return 1.0
    if template.contract == "strict":
        return 0.0 if contract_faults(template, completion) else 1.0
    return sum(n == 1 for n in marker_counts(template, completion).values()) / len(template.markers)


def contract_faults(template: Template, completion: str) -> list[str]:
    """What keeps a completion from the full format score, in words; empty where nothing does."""
    if template.contract == "interleaved":
        found = blocks(template.prefill + completion)
        return [found] if isinstance(found, str) else []
    counts = marker_counts(template, completion)
    faults = [f"{marker!r} occurs {n} times, not once" for marker, n in counts.items() if n != 1]
    if template.contract == "count" or faults:
        return faults
    places = [completion.index(marker) for marker in template.markers]
    for (marker, place), (following, next_place) in pairwise(zip(template.markers, places, strict=True)):
        if next_place < place:
            faults.append(f"{following!r} stands before {marker!r}")
    return faults or _tag_faults(template, completion)


def _tag_faults(template: Template, completion: str) -> list[str]:
    """Tags of the markers and the prefill must be opened and closed once each, one inside or after another."""
    named = {tag[2] for tag in _TAG.finditer("".join([template.prefill, *template.markers]))}
    seen = Counter[str]()
    still_open: list[str] = []
    for tag in _TAG.finditer(template.prefill + completion):
        if tag[2] not in named:
            continue
        seen[tag[0]] += 1
        if not tag[1]:
            still_open.append(tag[2])
        elif still_open and still_open[-1] == tag[2]:
            still_open.pop()
        else:
            return [f"{tag[0]} closes what is not open there"]
    faults = [f"{tag} occurs {n} times, not once" for tag, n in sorted(seen.items()) if n > 1]
    return faults + [f"<{name}> is never closed" for name in still_open]
