"""Admission: which problem comes next, under which template, as which token ids.

The order of problems is a function of the run's seed and the admission index alone, and so is the draw of templates
unless it is adaptive (learner/draw.py): a resumed run goes on where the ledger's `admitted` counter stands, and the
same seed draws the same run.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from learner.draw import TemplateDraw
from learner.prompts import Renderer
from problems.sources import load_problems
from protocol.config import RunConfig
from protocol.exits import CannotGoOn
from protocol.messages import Problem, Sampling, Task, pack_ids
from protocol.templating import Template, choose_templates

log = logging.getLogger("chorus.learner")


@dataclass(frozen=True)
class Prompted:
    """A problem rendered under a template."""

    problem: Problem
    template: str
    ids: list[int]


class Admission:
    """Turns admission indices into tasks. Problems whose prompt is too long are left out at the start.

    Raises CannotGoOn where a source can't be read or nothing is left to train on.
    """

    def __init__(self, config: RunConfig, run_id: str) -> None:
        self.config = config
        self.run_id = run_id
        self.tokenizer = load_tokenizer(config.model.path)
        self._renderer = Renderer(self.tokenizer, config.templates.chat)
        self.vocabulary = _vocabulary(config.model.path)
        files = [Path(f) for f in config.templates.files]
        self.templates = choose_templates(config.templates.names, files)
        asked = choose_templates(config.evaluation.templates, files, "evaluation.templates")
        self.evaluation_templates = asked or self.templates
        self.draw = TemplateDraw(config, self.templates)
        self.problems, self.too_long = self._fitting(_load(config.problems.train), self.templates)
        if not self.problems:
            raise CannotGoOn(
                f"problems.train: all {self.too_long} prompts are longer than problems.max_prompt_tokens "
                f"= {config.problems.max_prompt_tokens}; raise it"
            )
        if self.too_long:
            log.warning("%d problems are left out: their prompts exceed problems.max_prompt_tokens", self.too_long)

    def _fitting(self, problems: list[Problem], templates: Mapping[str, Template]) -> tuple[list[Problem], int]:
        """Problems that fit under each of these templates."""
        limit = self.config.problems.max_prompt_tokens
        fitting = [p for p in problems if all(len(self.render(p, t)) <= limit for t in templates.values())]
        return fitting, len(problems) - len(fitting)

    def render(self, problem: Problem, template: Template) -> list[int]:
        """The prompt's token ids, prefill included."""
        return self._renderer.ids(template, problem.problem)

    def at(self, index: int) -> tuple[int, Prompted]:
        """(epoch, prompt) of an admission index."""
        epoch, position = divmod(index, len(self.problems))
        problem = self.problems[_permutation(self.config.run.seed, epoch, len(self.problems))[position]]
        name = self.draw.at(index, epoch, problem.id)
        return epoch, Prompted(problem, name, self.render(problem, self.templates[name]))

    def task(self, index: int, min_version: int) -> Task:
        epoch, prompted = self.at(index)
        s = self.config.sampling
        return self._task(
            index,
            epoch,
            prompted,
            s.group_size,
            Sampling(temperature=s.temperature, max_tokens=s.max_tokens),
            min_version,
        )

    def evaluation_tasks(self, first_index: int, min_version: int) -> list[Task]:
        """Held-out problems, templates in equal shares: each `samples` times sampled, then once greedily."""
        return self._ask(self._heldout(), self.evaluation_templates, first_index, min_version)

    def validation_tasks(self, first_index: int, min_version: int) -> list[Task]:
        """Validation problems under the one fixed template; none that `evaluation_tasks` asks, whatever the sources.

        Checkpoints are chosen on these, so a figure on them is no estimate any more; the held-out ones stay unseen.
        """
        name, wanted = self.config.validation_template, self.config.evaluation.validation_problems
        files = [Path(f) for f in self.config.templates.files]
        templates = choose_templates([name], files, "evaluation.validation_template")
        reserved = {p.problem for p in self._heldout()}
        sources = self.config.problems.validation or self.config.problems.heldout
        problems = [p for p in self._fitting(_load(sources), templates)[0] if p.problem not in reserved]
        if len(problems) < wanted:
            raise CannotGoOn(
                f"problems.validation leaves {len(problems)} problems that fit and that the held-out evaluation does "
                f"not ask; evaluation.validation_problems is {wanted}: lower it, or name further sources"
            )
        return self._ask(_by_hash(problems)[:wanted], templates, first_index, min_version)

    def _heldout(self) -> list[Problem]:
        wanted = self.config.evaluation.problems
        problems, _ = self._fitting(_load(self.config.problems.heldout), self.evaluation_templates)
        if len(problems) < wanted:
            raise CannotGoOn(
                f"problems.heldout has {len(problems)} problems that fit; evaluation.problems asks for {wanted}"
            )
        return _by_hash(problems)[:wanted]

    def _ask(
        self, problems: list[Problem], templates: Mapping[str, Template], first_index: int, min_version: int
    ) -> list[Task]:
        e, s = self.config.evaluation, self.config.sampling
        names = sorted(templates)
        tasks: list[Task] = []
        for size, temperature in ((e.samples, s.temperature), (1, 0.0)):
            for k, problem in enumerate(problems):
                name = names[k % len(names)]
                prompted = Prompted(problem, name, self.render(problem, templates[name]))
                sampling = Sampling(temperature=temperature, max_tokens=s.max_tokens)
                tasks.append(self._task(first_index + len(tasks), 0, prompted, size, sampling, min_version))
        return tasks

    def _task(
        self, index: int, epoch: int, prompted: Prompted, size: int, sampling: Sampling, min_version: int
    ) -> Task:
        return Task(
            run_id=self.run_id,
            index=index,
            epoch=epoch,
            problem_id=prompted.problem.id,
            kind=prompted.problem.kind,
            gold=prompted.problem.answers,
            template=prompted.template,
            prompt_ids=pack_ids(prompted.ids),
            group_size=size,
            sampling=sampling,
            min_version=min_version,
            deadline_s=self.config.generator.group_deadline_s,
            admitted_at=time.time(),
        )


def load_tokenizer(path: str) -> PreTrainedTokenizerFast:
    """The tokenizer as tokenizer.json says, not as the architecture's default class would have it."""
    folder = Path(path)
    if folder.is_dir() and not (folder / "tokenizer.json").is_file():
        raise CannotGoOn(f"model.path {path}: there is no tokenizer.json in it; save the model's fast tokenizer there")
    try:
        return (PreTrainedTokenizerFast if folder.is_dir() else AutoTokenizer).from_pretrained(path)
    except Exception as error:  # the tokenizers library raises nothing more special
        raise CannotGoOn(f"model.path {path}: its tokenizer can't be loaded ({str(error).splitlines()[0]})") from None


def _vocabulary(path: str) -> int:
    """How many token ids the model knows; its embedding may hold more rows than the tokenizer has tokens."""
    try:
        return AutoConfig.from_pretrained(path).get_text_config().vocab_size
    except (OSError, ValueError) as error:
        raise CannotGoOn(f"model.path {path}: its config.json can't be used ({str(error).splitlines()[0]})") from None


def _load(sources: Sequence[str]) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for source in sources:
        try:
            problems |= {p.id: p for p in load_problems(source)}
        except (OSError, ValueError, ImportError) as error:
            raise CannotGoOn(f"problems: {source}: {error}") from None
    return list(problems.values())


def _by_hash(problems: list[Problem]) -> list[Problem]:
    """In an order that neither their source's nor a seed decides."""
    return sorted(problems, key=lambda p: hashlib.blake2b(p.id.encode()).digest())


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, n: int) -> list[int]:
    order = list(range(n))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order
