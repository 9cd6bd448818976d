"""Stops and resumes in any order, with other keys each time: what is accepted loses and doubles nothing, and what is
refused leaves the run to the keys that it had."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paperlearner import RUN, config_of, start

from chorus.protocol.run_folder import checkpoints
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.start import take_up
from chorus.protocol.runtime.exits import CannotGoOn

Changes = dict[str, dict[str, Any]]
CHANGES: list[Changes] = [
    {},
    {"learner": {"lr": 0.5, "checkpoint_every": 1}},
    {"learner": {"groups_per_step": 3}},
    {"learner": {"groups_per_step": 4, "updates_per_step": 4}},
    {"sampling": {"group_size": 4}},
    {"staleness": {"target": 0}},
    {"run": {"seed": 5}},
]


class Killed(BaseException):
    """What no handler of the learner's catches."""


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(orders=st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(1, 30)), min_size=1, max_size=3))
def test_any_order_of_stops_and_changed_keys_loses_and_doubles_nothing(
    client: redis.Redis, tiny_model: Path, tmp_path: Path, orders: list[tuple[Changes, int]]
) -> None:
    client.flushall()
    folder = Path(mkdtemp(dir=tmp_path))
    accepted: Changes = {}
    for changes, stop_at in orders:
        if _carry_out(client, tiny_model, folder, changes, stop_at):
            accepted = changes
        else:
            assert _carry_out(client, tiny_model, folder, accepted, 1), "the keys that it had go on"
    take_up(client, RunFolder(folder), RUN, resume=True)
    learner, parts = start(client, config_of(tiny_model, folder, **accepted | {"run": {"steps": 5}}), folder)
    learner.run()
    trained = parts.ranks.trained  # type: ignore[attr-defined]
    assert len(trained) == len(set(trained))
    manifests = [checkpoints.read_manifest(path) for path in checkpoints.whole(folder / "checkpoints")]
    accounts = parts.ledger.accounts()
    assert (accounts.difference, accounts.durable) == (0, len(trained)), "in the weights, and in the accounts"
    assert sum(len(m.all_entries) for m in manifests) == manifests[-1].trained == len(trained)


def _carry_out(client: redis.Redis, model: Path, folder: Path, changes: Changes, stop_at: int) -> bool:
    """Go on until the `stop_at`-th change of the world. False: this configuration was refused."""
    world: Iterator[int] = count(1)

    def dies(name: str) -> None:
        if next(world) == stop_at:
            raise Killed(name)

    config = config_of(model, folder, **changes)
    take_up(client, RunFolder(folder), RUN, resume=True)
    try:
        start(client, config, folder, dies)[0].run()
    except Killed:
        pass
    except CannotGoOn as refusal:
        assert "can't be trained again as it was under this configuration" in str(refusal)  # noqa: PT017
        return False
    return True
