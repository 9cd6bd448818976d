"""What a recipe names is looked at before anything is built or started: a mistake costs a second, not a minute."""

from __future__ import annotations

import re
from pathlib import Path

from chorus.deploy.first_contact import first_contact
from chorus.deploy.first_problems import check_problems
from chorus.learner.curriculum.sampler import PassRates
from chorus.learner.metrics.trackers import check_wandb
from chorus.learner.rollouts.template_sampler import TemplateDraw
from chorus.problems.critiques import load_critiques
from chorus.problems.rendering import read_chat_template
from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.templates.load import choose_templates
from chorus.reward_server.graders.own import unusable
from chorus.starter.resolve import BUILT

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def check_inputs(config: RunConfig, resumed: bool = False) -> None:
    """Raises CannotGoOn. Problems of the hub's are left to the learner, and a model that is yet to be built to whoever
    builds it."""
    files = [Path(file) for file in config.templates.files]
    templates = choose_templates(config.templates.names, files)
    TemplateDraw(config, templates)
    for key, names in (
        ("model.starter_templates", config.model.starter_templates),
        ("evaluation.templates", config.evaluation.templates),
        ("evaluation.validation_template", [config.validation_template]),
    ):
        choose_templates(names, files, key)
    _check_model(config.model.path)
    read_chat_template(config.templates.chat)
    rates = PassRates(config.curriculum.pass_rates)
    check_wandb(config.trackers.wandb)
    # A server that runs already has loaded its own; here the file need not even be.
    if not config.reward.url and (why := unusable(config.reward.graders)) is not None:
        raise CannotGoOn(why)
    check_problems(config, templates, rates)
    try:
        for source in config.finetune.data:
            load_critiques(source)
    except (OSError, ValueError) as error:
        raise CannotGoOn(f"finetune.data: {error}") from None
    if config.model.path not in BUILT:
        first_contact(config, resumed)


def _check_model(path: str) -> None:
    folder = Path(path)
    if path in BUILT:
        return
    if folder.is_dir():
        for name in ("config.json", "tokenizer.json"):
            if not (folder / name).is_file():
                raise CannotGoOn(
                    f"model.path {path}: there is no {name} in it; give a Hugging Face folder with the model's "
                    "configuration, weights and fast tokenizer"
                )
    elif folder.exists() or not _HUB_NAME.fullmatch(path):
        raise CannotGoOn(
            f"model.path {path}: no such folder; give a Hugging Face folder, a hub name, or one of {', '.join(BUILT)}"
        )
