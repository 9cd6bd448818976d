"""Which run a folder is, whatever it is called and wherever it lies: identity.json, made once.

    id       of the run, also in its ledger (protocol/ledger/identity.py)
    name     the prefix of its keys on Redis: what the folder was called when the run began
    marks    one for each of its last `starts`; the ledger holds the last one
    folder   where it lay at its last start, and on which `host`
    lineage  counts the ledgers it has had: 1, until one was lost and another begun from a checkpoint

Moved: nothing lies any more where the folder lay. Copied: the run with this id still lies there.
"""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Self

from chorus.protocol.run_folder.files import write_json
from chorus.protocol.run_folder.hold import is_held
from chorus.protocol.runtime.exits import CannotGoOn

Asked = Literal["", "new-lineage", "take-over"]
IDENTITY = "identity.json"
_MARKS_KEPT = 8
_CHOICE = (
    "add --take-over to let this folder be the run from now on, or --new-lineage to make a run of its own of it, from "
    "its newest checkpoint"
)


@dataclass(frozen=True)
class Begun:
    """A lineage after the first: from which checkpoint and admission index on, and how many of the indices before were
    not trained: dropped, or lost with their ledger. `of`: the run that it was copied from, if it was."""

    lineage: int
    step: int
    first_index: int
    untrained: int
    of: str = ""


@dataclass(frozen=True)
class Identity:
    id: str
    name: str
    marks: tuple[str, ...] = ()
    starts: int = 0
    lineage: int = 1
    begun: tuple[Begun, ...] = ()
    folder: str = ""
    host: str = ""
    asked: Asked = ""  # of the start in progress
    given_up_for: str = ""  # the folder that is the run since
    copy_of: str = ""  # the id of the run that it was copied from, until its own lineage has begun

    def placed(self, folder: Path) -> Self:
        return replace(self, folder=str(folder.resolve()), host=socket.gethostname())

    def marked(self) -> Self:
        """For one more start."""
        marks = (*self.marks, secrets.token_hex(8))[-_MARKS_KEPT:]
        return replace(self, marks=marks, starts=self.starts + 1, asked="", given_up_for="")

    @property
    def home(self) -> str:
        return f"{self.folder} on host {self.host}"


def asked_of(new_lineage: bool, take_over: bool) -> Asked:
    """What the two options say. Raises CannotGoOn where both are given."""
    if new_lineage and take_over:
        raise CannotGoOn("--new-lineage and --take-over exclude each other: the first makes a run of its own")
    return "new-lineage" if new_lineage else "take-over" if take_over else ""


def read_identity(folder: Path) -> Identity | None:
    """None for a folder without one. Raises CannotGoOn for a file that is none."""
    path = folder / IDENTITY
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        begun = tuple(Begun(**row) for row in fields.pop("begun"))
        return Identity(**fields | {"marks": tuple(fields["marks"]), "begun": begun})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CannotGoOn(f"{path}: can't be read ({error}); restore it from a copy of this folder") from None


def write_identity(folder: Path, identity: Identity) -> None:
    """On the disk before it returns."""
    try:
        write_json(folder / IDENTITY, asdict(identity), durable=True)
    except OSError as error:
        raise CannotGoOn(f"{folder / IDENTITY}: {error.strerror}; give a folder that can be written") from None


def name_of(folder: Path) -> str:
    """The run's prefix on Redis."""
    identity = read_identity(folder)
    return identity.name if identity else folder.resolve().name


def identify(folder: Path, name: str, asked: Asked = "") -> Identity:
    """The folder's identity, made if it has none, with what was asked for this start; on the disk.

    Raises CannotGoOn for a copy, and for an original that was given up for one, where nothing was asked.
    """
    identity = read_identity(folder) or Identity(secrets.token_hex(16), name)
    identity = replace(identity, asked=asked)
    if asked != "take-over" and (other := _same_run(identity.given_up_for, folder, identity.id)):
        raise CannotGoOn(f"{folder}: this run was given up for its copy in {other}; go on there, or {_CHOICE}")
    if original := _same_run(identity.folder, folder, identity.id):
        if not asked:
            raise CannotGoOn(f"{folder}: it is a copy of the run in {original}, which is still there; {_CHOICE}")
        if asked == "take-over":
            _give_up(original, folder)
        else:
            identity = of_its_own(identity, folder)
    identity = identity.placed(folder)
    write_identity(folder, identity)
    return identity


def of_its_own(identity: Identity, folder: Path, name: str = "") -> Identity:
    """A copy that becomes another run: with an id and a name of its own, and no ledger yet."""
    id, called = secrets.token_hex(16), folder.resolve().name
    name = name or (called if called != identity.name else f"{called}-{id[:6]}")
    return replace(identity, id=id, name=name, marks=(), given_up_for="", copy_of=identity.id)


def _same_run(place: str, folder: Path, id: str) -> Path | None:
    """The folder at `place`, if it is another one than `folder` and holds the same run."""
    other = Path(place)
    try:
        if not place or not other.is_dir() or other.samefile(folder):
            return None
        found = read_identity(other)
    except (OSError, CannotGoOn):
        return None
    return other if found and found.id == id else None


def _give_up(original: Path, folder: Path) -> None:
    if is_held(original):
        raise CannotGoOn(f"{folder}: the run goes on in {original}; stop it before its copy takes it over")
    identity = read_identity(original)
    if identity:
        write_identity(original, replace(identity, given_up_for=str(folder.resolve())))
