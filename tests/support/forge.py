"""Strategies for what an attacker, a broken disk or another version may send in place of a valid message.

`forged_bytes(valid)`: any bytes, the valid ones cut short, with bytes flipped, moved, repeated or added, and maps
whose fields were replaced, removed or invented at any depth. `inputs(n)` is how many a test draws.
"""

from __future__ import annotations

import copy
import json
import os
from typing import Any

import hypothesis.strategies as st
import msgpack
from hypothesis import HealthCheck, Phase, settings

# `make fuzz` sets it; 0 is the short form of `make test`: few inputs, the same every time.
INPUTS = int(os.environ.get("CHORUS_FUZZ", "0"))
# Lengths that are not there, nesting deeper than any stack: a header costs nothing to send.
BOMBS = [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 3000, b"\x81\xa1a" * 3000]
LONG = "x" * 20_000


def inputs(few: int = 100, share: float = 1.0) -> Any:
    """Hypothesis settings of a fuzz test; `share` where several tests draw for one reader."""
    return settings(
        max_examples=max(1, int(INPUTS * share)) if INPUTS else few,
        derandomize=not INPUTS,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


numbers = st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64 - 1, -(2**63), 0.5, -0.0, 1e308, float("nan"), float("inf")])
leaves = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    st.text(max_size=6),
    st.sampled_from(["", LONG, "\ud800", "1.0", "../../etc/passwd", "__import__('os')"]),
)
packable = st.one_of(leaves.filter(lambda v: v != "\ud800"), st.binary(max_size=9), st.just(bytes(20_003)))


def nested(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        leaf, st.lists(leaf, max_size=3), st.dictionaries(st.text(max_size=4), leaf, max_size=3), st.just([[[[0]]]])
    )


def paths(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in a tree of maps and lists, the root left out."""
    found = [here] if here else []
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        found += paths(child, (*here, key))
    return found


def _change(tree: Any, how: str, path: tuple[Any, ...], value: Any) -> Any:
    tree = copy.deepcopy(tree)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if how == "replace":
        parent[path[-1]] = value
    elif how == "remove":
        del parent[path[-1]]
    elif isinstance(parent, dict):
        parent["surprise"] = value
    else:
        parent.extend([value] * 3)
    return tree


def forged_tree(tree: Any, leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`tree` with one place changed."""
    hows = st.sampled_from(["replace", "replace", "remove", "add"])
    return st.builds(_change, st.just(tree), hows, st.sampled_from(paths(tree)), nested(leaf))


def _flip(valid: bytes, places: list[tuple[int, int]]) -> bytes:
    data = bytearray(valid)
    for place, value in places:
        data[place % len(data)] = value
    return bytes(data)


def _splice(valid: bytes, start: int, length: int, to: int, times: int) -> bytes:
    part = valid[start : start + length] * times
    return valid[:to] + part + valid[to:]


def damaged(valid: bytes) -> st.SearchStrategy[bytes]:
    """Bytes that were once `valid`, and bytes that never were."""
    place = st.integers(0, len(valid) - 1)
    return st.one_of(
        st.binary(max_size=200),
        place.map(lambda n: valid[:n]),
        st.builds(_flip, st.just(valid), st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=6)),
        st.builds(_splice, st.just(valid), place, st.integers(1, 30), place, st.integers(1, 40)),
        st.binary(min_size=1, max_size=20).map(lambda more: valid + more),
    )


def forged_bytes(valid: bytes) -> st.SearchStrategy[bytes]:
    """What may stand where a msgpack message was expected."""
    trees = forged_tree(msgpack.unpackb(valid), packable).map(_pack)
    return st.one_of(damaged(valid), trees, trees, st.sampled_from(BOMBS))


def forged_json(valid: Any) -> st.SearchStrategy[bytes]:
    """What may stand where a JSON body was expected."""
    text = json.dumps(valid).encode()
    trees = forged_tree(valid, leaves).map(lambda tree: json.dumps(tree).encode())
    return st.one_of(damaged(text), trees, trees, st.sampled_from([b"[" * 3000, b"9" * 5000, b'{"a":' * 3000]))


def _pack(tree: Any) -> bytes:
    try:
        return msgpack.packb(tree) or b""
    except (OverflowError, ValueError):
        return b""
