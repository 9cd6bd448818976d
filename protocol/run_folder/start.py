"""A learner's start: is this folder's run the one whose ledger answers? Asked before anything is changed, both ways.

    folder has                 ledger has                       then
    nothing yet                nothing                          a run begins
    nothing yet                keys of this name                refused: the name is another run's
    marks, checkpoints, steps  nothing                          refused: the ledger is lost    --new-lineage
    an id                      another id                       refused: the name is another run's
    an id                      a mark it does not know          refused: a copy went on        either of the two
    a checkpoint               less than it holds               refused: an old ledger         --new-lineage
    a checkpoint               more than it holds               refused: an old folder         --new-lineage
    all of it                  the same                         the run goes on

What the newest checkpoint holds may be missing from the ledger's count: a crash can come between the two, and a power
cut takes the last second of an append-only file.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import redis

from chorus.protocol.ledger.identity import LedgerState, begin_anew, read_state
from chorus.protocol.ledger.identity import write_identity as write_to_ledger
from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.checkpoints import Manifest
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.identity import (
    Asked,
    Begun,
    Identity,
    identify,
    of_its_own,
    read_identity,
    write_identity,
)
from chorus.protocol.runtime.exits import CannotGoOn

log = logging.getLogger("chorus.run")
_FLUSH_S = 2.0  # twice the time after which Redis' append-only file is on the disk
_ANEW = "or add --new-lineage: a new ledger from {} on, with new indices; what was on its way is lost"


@dataclass(frozen=True)
class _Refusal:
    """`mends`: what may be asked for instead. `copied`: the ledger has gone on with another folder."""

    text: str
    mends: tuple[Asked, ...] = ()
    copied: bool = False


def look_ahead(client: redis.Redis, run: RunFolder, asked: Asked) -> None:
    """Before services are told the run's name: refuse what `take_up` would refuse, and give a copy that shall be a run
    of its own its own name. Raises CannotGoOn."""
    identity = read_identity(run.path)
    if identity is None:
        return
    refusal = compare(run, identity, read_state(client, identity.name), resume=True)
    if refusal and refusal.copied and asked == "new-lineage":
        write_identity(run.path, of_its_own(identity, run.path))
    elif refusal and asked not in refusal.mends:
        raise CannotGoOn(refusal.text)


def take_up(client: redis.Redis, run: RunFolder, name: str, resume: bool, asked: Asked = "") -> Identity:
    """Compare folder, manifests and ledger, begin a lineage where that was asked for and is needed, and leave this
    start's mark in both. Raises CannotGoOn; nothing of the run is changed then.

    name: the run's prefix on Redis. resume: the learner goes on from the newest checkpoint.
    """
    known = read_identity(run.path)
    identity = identify(run.path, name, asked or (known.asked if known else ""))
    if identity.name != name and not identity.marks:  # it has never begun
        identity = replace(identity, name=name)
    elif identity.name != name:
        if identity.asked != "new-lineage":
            raise CannotGoOn(
                f"--run-id {name}: the run in {run.path} is called {identity.name!r} on Redis; give that, or add "
                "--new-lineage to make a run of its own of this folder"
            )
        identity = of_its_own(identity, run.path, name)
    state = read_state(client, name)
    refusal = compare(run, identity, state, resume)
    if refusal is None:
        if identity.asked:
            log.warning("--%s: folder and ledger agree, so the run goes on as it is", identity.asked)
    elif identity.asked not in refusal.mends:
        raise CannotGoOn(refusal.text)
    elif identity.asked == "new-lineage":
        identity = _begin_lineage(client, run, identity, state)
    identity = identity.marked()
    write_identity(run.path, identity)
    mark = {"id": identity.id, "mark": identity.marks[-1], "folder": identity.folder, "host": identity.host}
    write_to_ledger(client, name, mark)
    return identity


def compare(run: RunFolder, identity: Identity, state: LedgerState | None, resume: bool) -> _Refusal | None:
    """None where they are of one run."""
    manifest = _newest(run)
    begun = bool(manifest or len(identity.marks) > 1 or any(run.rollouts.glob("step*")))
    anew = _ANEW.format(f"checkpoint step {manifest.step}" if manifest else "step 0")
    if state is None:
        if not begun:
            return None
        text = f"{run.path}: Redis has no ledger of run {identity.name!r}: was the server emptied or replaced?"
        return _Refusal(f"{text} Bring its data back, {anew}", ("new-lineage",))
    if state.id not in ("", identity.id) or not (begun or identity.marks or state.id):
        whose = f" (its folder: {state.folder} on host {state.host})" if state.folder else ""
        return _Refusal(
            f"{run.path}: on this Redis the name {identity.name!r} is another run's{whose}; give this one a name of "
            "its own (--run-id), or delete that run's keys"
        )
    counts = _counts(run, identity, state, manifest, resume, anew)
    if state.mark and identity.marks and state.mark not in identity.marks:
        take_over = "add --take-over to let this folder be the run from now on, " if counts is None else ""
        return _Refusal(
            f"{run.path}: its ledger went on with the folder {state.folder} on host {state.host}: one is a copy "
            f"of the other; go on there, {take_over}or make a run of its own of it, from its newest checkpoint: "
            "--new-lineage (a learner by hand: with another --run-id)",
            ("take-over",) if counts is None else (),
            copied=True,
        )
    return counts


def _counts(
    run: RunFolder, identity: Identity, state: LedgerState, manifest: Manifest | None, resume: bool, anew: str
) -> _Refusal | None:
    """Whether the ledger and the checkpoints say the same of this lineage."""
    if manifest and not resume:
        return _Refusal(f"{run.path}: it has a checkpoint of step {manifest.step}; add --resume to go on from it")
    trained = newest = 0
    if manifest and manifest.lineage == identity.lineage:
        trained = manifest.trained
        newest = checkpoints.trained_in(run.checkpoints, manifest.lineage, manifest.at - _FLUSH_S)
    if manifest and (state.fence < manifest.fence or state.durable < trained - newest):
        return _Refusal(
            f"{run.path}: its ledger on Redis is older than its checkpoint of step {manifest.step} ({state.durable} "
            f"groups are durable there, {trained} here): was an old copy restored? Bring its data back, {anew}",
            ("new-lineage",),
        )
    if state.durable > trained:
        return _Refusal(
            f"{run.path}: its ledger on Redis knows {state.durable} durable groups, its checkpoints {trained}: the "
            f"folder is an old copy, or checkpoints were removed. Bring them back, {anew}",
            ("new-lineage",),
        )
    return None


def _newest(run: RunFolder) -> Manifest | None:
    """With the number of groups trained in its lineage, which manifests of older versions do not say."""
    path = checkpoints.latest(run.checkpoints)
    manifest = checkpoints.read_manifest(path) if path else None
    if manifest is None or manifest.trained:
        return manifest
    return replace(manifest, trained=checkpoints.trained_in(run.checkpoints, manifest.lineage))


def _begin_lineage(client: redis.Redis, run: RunFolder, identity: Identity, state: LedgerState | None) -> Identity:
    """A new ledger at the newest checkpoint, or at the run's beginning."""
    step, first, trained, fence = 0, 0, 0, 0
    if manifest := _newest(run):
        if manifest.admitted is None:
            raise CannotGoOn(
                f"{run.path}: its checkpoint of step {manifest.step} does not say how many groups were admitted: an "
                "older version wrote it; make it the model.path of a new run"
            )
        step, first, trained, fence = manifest.step, manifest.admitted, manifest.trained, manifest.fence
    fence = max(fence, state.fence if state else 0) + identity.starts  # each of them may have raised it since
    before = identity.begun[-1].first_index if identity.begun else 0
    begun = Begun(identity.lineage + 1, step, first, max(0, first - before - trained), identity.copy_of)
    begin_anew(client, identity.name, fence, first)
    log.warning(
        "run %s: lineage %d begins at step %d with index %d; of the indices before, %d were dropped or went with "
        "the ledger that is gone",
        *(identity.name, begun.lineage, step, first, begun.untrained),
    )
    return replace(identity, lineage=begun.lineage, begun=(*identity.begun, begun), copy_of="")
