"""What differs between two versions of the same bytes, exactly, in the smallest of four forms.

    gaps8, gaps16   how many values stand still before each one that changes, and the changed values
    mask            one bit a value, and the changed values
    whole           the new bytes, where the others are no smaller

A value is one of the wire's dtype, so 2 bytes in bfloat16, compared bit by bit. A part, one for each bucket, is the
values, then gaps or mask, then one byte that names the form; nothing at all where nothing changed. A gap that is
too long for its width is bridged: values that stand still are sent like changed ones, one at each of its ends.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

_WHOLE, _MASK, _GAPS8, _GAPS16 = range(4)
_GAPS = {_GAPS8: np.dtype("u1"), _GAPS16: np.dtype("<u2")}
_FORM_BYTES = 1


def difference(base: np.ndarray, new: np.ndarray, unit: int) -> np.ndarray:
    """The part that makes `new` of `base`, uint8 [bytes] both and equally long; at most a byte longer than they."""
    old, now = _values(base, unit), _values(new, unit)
    differs = old != now
    count, width = int(np.count_nonzero(differs)), now.itemsize
    if not count:
        return np.empty(0, np.uint8)
    sizes = {_WHOLE: new.size, _MASK: count * width - (-now.size // 8)}
    gaps = np.empty(0, np.int64)
    if 8 * count < now.size:  # else gaps take at least as much as the mask
        gaps = np.diff(np.flatnonzero(differs), prepend=-1) - 1
        sizes |= {form: _entries(gaps, form) * (width + of.itemsize) for form, of in _GAPS.items()}
    form = min(sizes, key=lambda form: sizes[form])
    if form == _WHOLE:
        return _part(form, new)
    if form == _MASK:
        return _part(form, now[differs], np.packbits(differs))
    bridged = _bridged(gaps, form)
    return _part(form, now[_places(bridged)], bridged)


def apply(base: np.ndarray, part: np.ndarray, unit: int) -> None:
    """Make the new bytes of `base`, in its place. Raises ValueError where the part is not one for so many bytes."""
    if not part.size:
        return
    values, form = _values(base, unit), int(part[-1])
    try:
        _FORMS[form](values, part[:-_FORM_BYTES])
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError(f"a delta of {part.size} bytes does not fit {base.size} bytes of weights: {error}") from None


def checksum(buckets: Iterable[np.ndarray]) -> int:
    """CRC-32 of all bytes, one bucket behind the other."""
    crc = 0
    for bucket in buckets:
        crc = zlib.crc32(bucket.data, crc)
    return crc


def _values(data: np.ndarray, unit: int) -> np.ndarray:
    """A view, in units; bytes, where there is no whole number of them."""
    return data.view(f"<u{unit}" if data.size % unit == 0 else "u1")


def _part(form: int, *arrays: np.ndarray) -> np.ndarray:
    return np.concatenate([*(array.view(np.uint8) for array in arrays), np.array([form], np.uint8)])


def _span(form: int) -> int:
    """Values that one entry reaches over at most, its own included."""
    return 1 << 8 * _GAPS[form].itemsize


def _entries(gaps: np.ndarray, form: int) -> int:
    return gaps.size + int((gaps // _span(form)).sum())


def _bridged(gaps: np.ndarray, form: int) -> np.ndarray:
    """The gaps with those that are too long in several."""
    bridges, rest = np.divmod(gaps, _span(form))
    ends = np.cumsum(bridges + 1) - 1
    entries = np.full(ends[-1] + 1, _span(form) - 1, _GAPS[form])
    entries[ends] = rest
    return entries


def _places(gaps: np.ndarray) -> np.ndarray:
    return np.cumsum(gaps.astype(np.int64) + 1) - 1


def _put_whole(values: np.ndarray, data: np.ndarray) -> None:
    values[:] = data.view(values.dtype)


def _put_mask(values: np.ndarray, data: np.ndarray) -> None:
    bits = -(-values.size // 8)
    if data.size < bits:
        raise ValueError("its mask is cut off")
    split = data.size - bits
    differs = np.unpackbits(data[split:], count=values.size).view(bool)
    values[differs] = data[:split].view(values.dtype)


def _put_gaps(values: np.ndarray, data: np.ndarray, form: int) -> None:
    entries, rest = divmod(data.size, values.itemsize + _GAPS[form].itemsize)
    if rest:
        raise ValueError("it is cut off")
    split = entries * values.itemsize
    values[_places(data[split:].view(_GAPS[form]))] = data[:split].view(values.dtype)


_FORMS = {
    _WHOLE: _put_whole,
    _MASK: _put_mask,
    _GAPS8: lambda values, data: _put_gaps(values, data, _GAPS8),
    _GAPS16: lambda values, data: _put_gaps(values, data, _GAPS16),
}
