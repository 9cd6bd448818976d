"""What a recipe wished, told from what a machine chose: at every start the latter is chosen anew.

A run's config.json holds both, since all services read it; run.json names under `chosen` the keys that nobody had set.
"""

from __future__ import annotations

from typing import Any

from chorus.protocol.config.run import RunConfig
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.folder import RunFolder


def chosen_by_machine(config: RunConfig) -> list[str]:
    """The keys that a start settles for itself, because `config` leaves them open."""
    open_keys = {
        "redis.url": not config.redis.url,
        "reward.url": not config.reward.url,
        "placement.learner_gpus": config.placement.learner_gpus is None,
        "placement.generator_gpus": config.placement.generator_gpus is None,
        "reward.workers": not config.reward.url and "workers" not in config.reward.model_fields_set,
        "generator.replicas": "replicas" not in config.generator.model_fields_set,
    }
    return [key for key, is_open in open_keys.items() if is_open]


def as_wished(config: RunConfig, run: RunFolder) -> RunConfig:
    """`config` of a run that is resumed, without what its last start chose. What differs from config.json was asked for
    since, and stays."""
    stored, note = read_json(run.config), read_json(run.note)
    fields: dict[str, dict[str, Any]] = config.model_dump(mode="json")
    for key in note.get("chosen", _before_it_was_noted(note)):
        section, name = key.split(".")
        if fields[section].get(name) == (stored.get(section) or {}).get(name):
            fields[section].pop(name, None)
    return RunConfig.model_validate(fields)


def _before_it_was_noted(note: dict[str, Any]) -> list[str]:
    own = {"redis.url": note.get("own_redis"), "reward.url": note.get("own_reward_server")}
    return [key for key, is_own in own.items() if is_own]
