"""Which GPUs an evaluation may take: all that are visible, but for those that a run in progress has."""

from __future__ import annotations

from pathlib import Path

from chorus.deploy.placement import visible_gpus
from chorus.protocol.config.run import Gpu
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.hold import is_held
from chorus.protocol.runtime.exits import CannotGoOn


def device_groups(named: str | None, together: int, runs: Path) -> list[list[Gpu]]:
    """Groups of `together` GPUs, an engine each; one empty group where there is none. Raises CannotGoOn.

    `named`: as --devices gives them. `runs`: the folder whose runs may have some.
    """
    visible = visible_gpus()
    taken = {} if named is not None else devices_of_runs(runs)
    free = _named(named, visible) if named is not None else [gpu for gpu in visible if gpu not in taken]
    if not visible:
        return [[]]
    if len(free) < together:
        held = ", ".join(f"{gpu} by {run}" for gpu, run in taken.items()) or "none"
        raise CannotGoOn(
            f"--tensor-parallel {together}: {len(free)} of {len(visible)} GPUs are free (taken: {held}); wait for the "
            "run, or name the GPUs with --devices"
        )
    return [free[k : k + together] for k in range(0, len(free) - together + 1, together)]


def devices_of_runs(runs: Path) -> dict[Gpu, str]:
    """GPU to the name of the run in progress that trains or samples on it."""
    taken: dict[Gpu, str] = {}
    for config in sorted(runs.glob("*/config.json")):
        placement = read_json(config).get("placement") or {}
        groups = [placement.get("learner_gpus") or [], *(placement.get("generator_gpus") or [])]
        gpus = [gpu for group in groups for gpu in group]
        if gpus and is_held(config.parent):
            taken |= dict.fromkeys(gpus, config.parent.name)
    return taken


def _named(named: str, visible: list[Gpu]) -> list[Gpu]:
    known = {str(gpu): gpu for gpu in visible}
    wanted = [part.strip() for part in named.split(",") if part.strip()]
    if not wanted or (missing := [name for name in wanted if name not in known]):
        raise CannotGoOn(
            f"--devices {named}: {', '.join(missing) if wanted else 'nothing'} is no GPU here; give some of "
            f"{', '.join(known) or 'none: there are none'}"
        )
    return [known[name] for name in dict.fromkeys(wanted)]
