"""One file from one place: over HTTP, going on where an earlier try stopped, or from a folder.

    .NAME.<digest of the address>.part ──whole, and its checksum right──▶ NAME

The half of one mirror is never completed by another one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx

from chorus.protocol.runtime.exits import first_line

_TIMEOUT = httpx.Timeout(60.0, connect=15.0)  # between two pieces, not of the whole
TRIES = 4  # connections a file, so long as each brings something


class NotHad(Exception):
    """This place does not have the file, or not this one. The message says why."""


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_file(address: str, to: Path, sha256: str, say: Callable[[str], None]) -> str:
    """Bring what is at `address` (a URL, or a path) to `to`, whole or not at all; returns its sha256. Raises NotHad.

    `sha256`: what it must be; empty: any.
    """
    part = to.with_name(f".{to.name}.{hashlib.sha256(address.encode()).hexdigest()[:8]}.part")
    if "://" in address:
        _download(address, part, say)
    elif Path(address).is_file():
        shutil.copyfile(address, part)
    else:
        raise NotHad("no such file")
    found = sha256_of(part)
    if sha256 and found != sha256:
        part.unlink()  # nothing of it is worth going on from
        raise NotHad(f"its sha256 is {found}, not {sha256}: another file than was meant")
    part.replace(to)
    return found


def _download(address: str, part: Path, say: Callable[[str], None]) -> None:
    """Into `part`, from where that ends."""
    for last in (*[False] * (TRIES - 1), True):
        held = part.stat().st_size if part.exists() else 0
        if held:
            say(f"goes on at byte {held:,} of {address}")
        try:
            _pull(address, part, held)
            return
        except httpx.HTTPError as error:
            grown = part.exists() and part.stat().st_size > held
            if last or not grown:
                raise NotHad(f"{type(error).__name__}: {first_line(error)}") from None


def _pull(address: str, part: Path, held: int) -> None:
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={held}-"} if held else {})
    with httpx.stream("GET", address, headers=headers, follow_redirects=True, timeout=_TIMEOUT) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # it was whole already
        if answer.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise NotHad(f"it answers {answer.status_code}")
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {held}-")  # else it begins anew
        with part.open("ab" if goes_on else "wb") as file:
            for piece in answer.iter_raw():  # as it comes: what is here when the line breaks is kept
                file.write(piece)
