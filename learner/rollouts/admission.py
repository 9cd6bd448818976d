"""Admission: which problem comes next, under which template, as which token ids.

The order of problems is a function of the run's seed, the admission index and the starts of the stages so far
(learner/curriculum/stages.py), and so is the draw of templates unless it is adaptive (template_sampler.py): a resumed
run goes on where the ledger's `admitted` counter stands, and the same seed draws the same run.
"""

from __future__ import annotations

import hashlib
import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from transformers import AutoConfig

from chorus.learner.curriculum.asked import check_sub_answers, without_overlap
from chorus.learner.curriculum.hints import Hints, OnlineRatios, Probe
from chorus.learner.curriculum.sampler import PassRates, Pool, choose
from chorus.learner.curriculum.stages import Stages
from chorus.learner.rollouts.template_sampler import TemplateDraw
from chorus.problems.choice_forms import split_options
from chorus.problems.identity import content, gather
from chorus.problems.rendering import Renderer, load_tokenizer, stop_tokens
from chorus.problems.sources import load_problems
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Rollout
from chorus.protocol.messages import Problem, RolloutGroup, Sampling, Task, pack_ids
from chorus.protocol.rewards import OPEN, Gates
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.protocol.templates.load import choose_templates
from chorus.protocol.templates.template import Template, opening

log = logging.getLogger("chorus.learner")


@dataclass(frozen=True)
class Prompted:
    """A problem rendered under a template, with the hint of this ratio."""

    problem: Problem
    template: str
    ids: list[int]
    hint_ratio: float = 0.0


class Admission:
    """Turns admission indices into tasks. Problems whose prompt is too long are left out at the start.

    Raises CannotGoOn where a source can't be read or nothing is left to train on.
    """

    def __init__(self, config: RunConfig, run_id: str) -> None:
        self.config = config
        self.run_id = run_id
        self.tokenizer = load_tokenizer(config.model.path)
        self._renderer = Renderer(self.tokenizer, config.templates.chat, config.templates.chat_arguments)
        self.vocabulary = _vocabulary(config.model.path)
        self.stop = stop_tokens(config.model.path, self.tokenizer, self.vocabulary)
        files = [Path(f) for f in config.templates.files]
        self.templates = choose_templates(config.templates.names, files)
        asked = choose_templates(config.evaluation.templates, files, "evaluation.templates")
        self.evaluation_templates = asked or self.templates
        self.draw = TemplateDraw(config, self.templates)
        problems = self._without_overlap(self._load(config.problems.train))
        self.digests = {p.id: content(p) for p in problems}
        self.problems = [p for p in problems if self._fits(p.problem, self.templates)]
        self.too_long = len(problems) - len(self.problems)
        if not self.problems:
            raise CannotGoOn(
                f"problems.train: all {self.too_long} prompts are longer than problems.max_prompt_tokens "
                f"= {config.problems.max_prompt_tokens}; raise it"
            )
        if self.too_long:
            log.warning("%d problems are left out: their prompts exceed problems.max_prompt_tokens", self.too_long)
        check_sub_answers(config, self.templates.values(), self.problems)
        self.by_id = {problem.id: problem for problem in self.problems}
        self.hints = Hints(config, self.tokenizer, lambda text, begun: self._fits(text, self.templates, begun))
        self.online = OnlineRatios(config.curriculum.hints.online, config.run.steps)
        self.probe = Probe()
        self.stages = self._stages()
        self._check_asked()

    def _load(self, sources: Sequence[str]) -> list[Problem]:
        """With the columns that the run's own graders ask for."""
        needs, by_id = self.config.reward.row_needs, bool(self.config.curriculum.pass_rates)
        try:
            return gather(((source, load_problems(source, needs)) for source in sources), by_id)
        except (OSError, ValueError, ImportError) as error:
            raise CannotGoOn(f"problems: {error}") from None

    def _check_asked(self) -> None:
        """What is not there to be asked is refused now, and not at the first validation."""
        if self.config.evaluation.problems:
            self._heldout()
        if self.config.evaluation.every:
            self.validation_tasks(0, 0)

    def _without_overlap(self, problems: list[Problem]) -> list[Problem]:
        sources = self.config.problems.exclude_overlap
        if not sources:
            return problems
        left = without_overlap(problems, self._load(sources))
        log.warning("%d problems are left out: they stand in problems.exclude_overlap too", len(problems) - len(left))
        return left

    def _stages(self) -> Stages:
        """Every stage's problems, so that one that has none is refused before the run begins."""
        config = self.config
        rates = PassRates(config.curriculum.pass_rates)
        pools = []
        for stage in config.curriculum.all_stages:
            chosen = choose(self.problems, stage, rates, self.hints)
            if chosen.left_out:
                reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(chosen.left_out.items()))
                log.warning("stage %s: %d problems, without %s", stage.name, len(chosen.problems), reasons)
            pools.append(Pool(chosen, stage, config.run.seed, config.learner.groups_per_step))
        return Stages(config, pools)

    def open(self, run: RunFolder) -> None:
        """Take up what earlier learners of this run have left; before anything is admitted."""
        self.stages.solved.open(run.solved)
        self.stages.open(run.stages)
        self.online.open(run.hints)

    def _fits(self, text: str, templates: Mapping[str, Template], begun: str = "") -> bool:
        """Whether a problem's text, and an answer's beginning, fit under each of these templates."""
        limit = self.config.problems.max_prompt_tokens
        return all(len(self._renderer.ids(t, text, begun)) <= limit for t in templates.values())

    def ids(self, template: Template, text: str) -> list[int]:
        """The prompt's token ids for what a user says, in the run's chat format."""
        return self._renderer.ids(template, text)

    def render(self, problem: Problem, template: Template, hint_ratio: float = 0.0) -> list[int]:
        """The prompt's token ids, hint and prefill included."""
        if not hint_ratio:
            return self._renderer.ids(template, problem.problem)
        begun = self.hints.begun(problem, hint_ratio)
        return self._renderer.ids(template, self.hints.text(problem, hint_ratio), begun)

    def at(self, index: int, step: int | None = None) -> tuple[int, Prompted]:
        """(epoch, prompt) of an admission index; `step` that it is admitted for, from 1 (by default the one that it
        would train in if no group were dropped), bounds an online hint."""
        epoch, problem = self.stages.at(index)
        name = self.draw.at(index, epoch, problem.id)
        ratio = self._hint_ratio(index, problem, step or index // self.config.learner.groups_per_step + 1)
        # At an online ratio that is too small for a hint the problem is asked as it is: no group of QuestA's lone blank
        # line was ever right, which raised the ratio again.
        alone = self.stages.of(index).hint_ratio == "online" and not self.hints.is_given(problem, ratio)
        ids = self.render(problem, self.templates[name], 0.0 if alone else ratio)
        return epoch, Prompted(problem, name, ids, ratio)

    def _hint_ratio(self, index: int, problem: Problem, step: int) -> float:
        several = self.stages.ratio(index)
        if several is not None:
            return several
        ratio = self.stages.of(index).hint_ratio
        if not ratio or isinstance(ratio, list) or self.hints.is_probe(problem.id):
            return 0.0
        if ratio == "online":
            return self.hints.lower(problem, self.online.wanted(problem.id, step), self.online.config.move)
        return ratio

    def task(self, index: int, min_version: int, step: int | None = None) -> Task:
        epoch, prompted = self.at(index, step)
        s, stage = self.config.sampling, self.stages.of(index)
        sampling = Sampling(
            temperature=stage.temperature or s.temperature, max_tokens=stage.max_tokens or s.max_tokens, stop=self.stop
        )
        return self._task(index, epoch, prompted, self.stages.group_size(index), sampling, min_version)

    def _opened(self, prompted: Prompted) -> str:
        """The marker that the prompt has written because the answer's beginning stands behind it."""
        begun = self.hints.begun(prompted.problem, prompted.hint_ratio) if prompted.hint_ratio else ""
        return opening(self.templates[prompted.template]) if begun else ""

    def observe(self, group: RolloutGroup) -> None:
        """A graded group came back, whether it will be trained or not: the probe and online hints learn from it."""
        task = group.task
        known = [s.grade.accuracy for s in group.samples if s.grade.accuracy is not None]
        if not known:
            return
        self.stages.observe(task.index, task.problem_id, statistics.fmean(known))
        if not self.config.curriculum.gives_hints:
            return
        if self.hints.is_probe(task.problem_id):
            self.probe.add(known)
        elif self.stages.of(task.index).hint_ratio == "online":
            self.online.observe(task.index, task.problem_id, task.hint_ratio, statistics.fmean(known))

    def observe_step(self, groups: list[Rollout], gates: Gates = OPEN) -> None:
        """A step was trained: adaptive weights of templates follow it. gates: of its reward."""
        self.draw.observe(groups, gates)

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
        problems = self._first_fitting([p for p in self._load(sources) if p.problem not in reserved], templates, wanted)
        if len(problems) < wanted:
            raise CannotGoOn(
                f"problems.validation leaves {len(problems)} problems that fit and that the held-out evaluation does "
                f"not ask; evaluation.validation_problems is {wanted}: lower it, or name further sources"
            )
        return self._ask(problems, templates, first_index, min_version)

    def _heldout(self) -> list[Problem]:
        wanted = self.config.evaluation.problems
        problems = self._first_fitting(self._load(self.config.problems.heldout), self.evaluation_templates, wanted)
        if len(problems) < wanted:
            raise CannotGoOn(
                f"problems.heldout has {len(problems)} problems that fit; evaluation.problems asks for {wanted}: "
                "lower it"
            )
        return problems

    def _first_fitting(self, problems: list[Problem], templates: Mapping[str, Template], wanted: int) -> list[Problem]:
        """The first `wanted`, in the order of their hashes; to render them all would hold up every validation."""
        return list(islice((p for p in _by_hash(problems) if self._fits(p.problem, templates)), wanted))

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
                sampling = Sampling(temperature=temperature, max_tokens=s.max_tokens, stop=self.stop)
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
            tests=prompted.problem.tests,
            row=prompted.problem.row,
            sub_answers=prompted.problem.sub_answers or [],
            template=prompted.template,
            hint_ratio=prompted.hint_ratio,
            opened=self._opened(prompted),
            options=split_options(prompted.problem.problem)[1] if prompted.problem.kind == "choice" else [],
            prompt_ids=pack_ids(prompted.ids),
            group_size=size,
            sampling=sampling,
            min_version=min_version,
            deadline_s=self.config.generator.group_deadline_s,
            admitted_at=time.time(),
        )


def _vocabulary(path: str) -> int:
    """How many token ids the model knows; its embedding may hold more rows than the tokenizer has tokens."""
    try:
        return AutoConfig.from_pretrained(path).get_text_config().vocab_size
    except (OSError, ValueError) as error:
        raise CannotGoOn(
            f"model.path {path}: its config.json can't be used ({first_line(error)}); save the model anew"
        ) from None


def _by_hash(problems: list[Problem]) -> list[Problem]:
    """In an order that neither their source's nor a seed decides."""
    return sorted(problems, key=lambda p: hashlib.blake2b(p.id.encode()).digest())
