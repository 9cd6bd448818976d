"""What differs between two versions of the same bytes: exact, never much more than the whole, and checked."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chorus.generator.held import Held
from chorus.protocol.messages import Delta, Tensor
from chorus.protocol.runtime.delta import apply, checksum, difference
from chorus.protocol.weights import plan_buckets


def bytes_pair(size: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random bytes, and the same with about this share of them changed."""
    random = np.random.default_rng(seed)
    base = random.integers(0, 256, size, dtype=np.uint8)
    new = base.copy()
    chosen = random.random(size) < share
    new[chosen] += random.integers(1, 256, int(chosen.sum()), dtype=np.uint8)
    return base, new


SIZES = st.integers(0, 300) | st.sampled_from([1024, 4096, 2**17, 2**17 + 1, 2**19])
SHARES = st.sampled_from([0.0, 1e-5, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.5, 0.9, 1.0])


@given(size=SIZES, share=SHARES, unit=st.sampled_from([1, 2, 4, 8]), seed=st.integers(0, 9))
def test_a_difference_makes_the_new_bytes_of_the_old_ones(size: int, share: float, unit: int, seed: int) -> None:
    base, new = bytes_pair(size, share, seed)
    kept = base.copy()
    part = difference(base, new, unit)
    assert (base == kept).all(), "nothing is changed by looking"
    width = unit if size % unit == 0 else 1
    changed = int((base.view(f"u{width}") != new.view(f"u{width}")).sum())
    # The values, and a bit for each that there is; or the whole; or, of few, at most three bytes beside each, and one
    # entry for each 65,536 that stand still.
    assert part.size <= changed * width + -(-size // width // 8) + 1
    assert part.size <= size + 1
    assert part.size <= changed * (width + 2) + (size // width >> 16) * (width + 2) + 1
    apply(base, part, unit)
    assert (base == new).all()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ([], 0),
        (list(range(0, 200_000, 100)), 2000 * 3 + 1),  # a byte of gap, two of value
        (list(range(0, 200_000, 1000)), 200 * 4 + 1),  # two bytes of gap: in one they would be four entries each
        (list(range(0, 200_000, 4)), 50_000 * 2 + 25_000 + 1),  # a bit for each of 200,000
        (list(range(200_000)), 400_000 + 1),
        ([199_999], 4 * 4 + 1),  # 65,536 values further with each of three entries that change nothing
    ],
)
def test_the_smallest_form_is_chosen(changed: list[int], expected: int) -> None:
    base = np.zeros(200_000, np.uint16)
    new = base.copy()
    new[changed] = 7
    assert difference(base.view(np.uint8), new.view(np.uint8), 2).size == expected


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_a_part_for_other_bytes_is_refused_and_one_that_is_cut_off_makes_others(share: float) -> None:
    base, new = bytes_pair(1024, share, 0)
    part = difference(base, new, 2)
    for of, broken in ((base[:64], part), (base, np.append(part[:-1], np.uint8(9)))):
        with pytest.raises(ValueError, match=rf"a delta of \d+ bytes does not fit {of.size} bytes"):
            apply(of.copy(), broken, 2)
    for cut in (1, 2, 3, 50):
        made = base.copy()
        with suppress(ValueError):
            apply(made, part[:-cut], 2)
        assert (made != new).any()


# -- what a receiver holds ------------------------------------------------------------------------------------------

PLAN = plan_buckets([Tensor(name=str(k), dtype="bfloat16", shape=[512]) for k in range(4)], 2048)


class Wire:
    """What the learner sends, one piece after another."""

    def __init__(self, *pieces: np.ndarray) -> None:
        self._pieces = list(pieces)

    def __call__(self, buffer: torch.Tensor) -> None:
        if not self._pieces:
            raise RuntimeError("the learner has gone")
        buffer.copy_(torch.from_numpy(self._pieces.pop(0)))


def held(version: str, buckets: list[np.ndarray]) -> Held:
    found = Held()
    found.room(PLAN, in_use=False)
    assert len(list(found.take(version, 0, None, Wire(*buckets)))) == 2
    return found


@pytest.fixture
def versions() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The buckets of 1.1 and of 1.2."""
    pairs = [bytes_pair(2048, 0.02, seed) for seed in range(2)]
    return [base for base, _ in pairs], [new for _, new in pairs]


def delta_of(base: list[np.ndarray], new: list[np.ndarray]) -> tuple[Delta, list[np.ndarray]]:
    parts = [difference(b, n, 2) for b, n in zip(base, new, strict=True)]
    return Delta(base="1.1", unit=2, lengths=[part.size for part in parts], checksum=checksum(new)), parts


Versions = tuple[list[np.ndarray], list[np.ndarray]]


def test_what_differs_is_added_to_what_came_before(versions: Versions) -> None:
    base, new = versions
    receiver, (delta, parts) = held("1.1", base), delta_of(base, new)
    assert len(list(receiver.take("1.2", 0, delta, Wire(*parts)))) == 2
    assert all((bucket.numpy() == n).all() for bucket, n in zip(receiver.buckets, new, strict=True))
    assert receiver.version == "1.2"


def test_who_still_reads_the_old_bytes_keeps_them(versions: Versions) -> None:
    base, new = versions
    receiver, (delta, parts) = held("1.1", base), delta_of(base, new)
    old = receiver.buckets
    receiver.room(PLAN, in_use=True)
    assert len(list(receiver.take("1.2", 0, delta, Wire(*parts)))) == 2
    assert all((bucket.numpy() == b).all() for bucket, b in zip(old, base, strict=True))
    assert all((bucket.numpy() == n).all() for bucket, n in zip(receiver.buckets, new, strict=True))


@pytest.mark.parametrize(
    ("damage", "said"),
    [("another version", "what is here is 1.0"), ("in the base", "the checksum is another"),
     ("in a value", "the checksum is another"), ("in a form", "does not fit"), ("on the way", "has gone")],
)  # fmt: skip
def test_what_does_not_become_the_learner_s_weights_is_refused_and_no_base_for_more(
    versions: Versions, damage: str, said: str
) -> None:
    base, new = versions
    receiver, (delta, parts) = held("1.0" if damage == "another version" else "1.1", base), delta_of(base, new)
    if damage == "in the base":
        receiver.buckets[1][7] ^= 1
    elif damage == "in a value":
        parts[1][0] ^= 1
    elif damage == "in a form":
        parts[1][-1] = 200
    with pytest.raises(RuntimeError, match=said):
        list(receiver.take("1.2", 0, delta, Wire(*parts[: 1 if damage == "on the way" else 2])))
    assert receiver.version != "1.2"
    if damage not in ("another version", "on the way"):  # there the bytes are what they were
        assert receiver.version == ""


def test_a_transfer_that_breaks_off_leaves_no_base(versions: Versions) -> None:
    receiver = held("1.1", versions[0])
    with pytest.raises(RuntimeError, match="has gone"):
        list(receiver.take("1.2", 0, None, Wire(versions[1][0])))
    assert receiver.version == ""


def test_another_layout_of_the_weights_is_no_base(versions: Versions) -> None:
    receiver = held("1.1", versions[0])
    receiver.room(plan_buckets([Tensor(name="0", dtype="bfloat16", shape=[2048])], 4096), in_use=False)
    assert receiver.version == ""
