"""The state behind the routes: settings, templates, pool, metrics; and what a grade becomes on its way out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from chorus.protocol.rewards import RewardParts, RewardSpec, compose
from chorus.protocol.templates.interleaved import places
from chorus.protocol.templates.load import known_templates
from chorus.protocol.templates.score import format_score, marker_counts
from chorus.protocol.templates.template import Template
from chorus.reward_server.api import schemas
from chorus.reward_server.api.asking import Answer, Asking, BadItemError, MissingFieldError, NoSandboxError, Question
from chorus.reward_server.api.metrics import Metrics
from chorus.reward_server.api.pools import Pools
from chorus.reward_server.api.settings import Settings
from chorus.reward_server.graders.task import Asked, Clusters, Extracted, GradeResult, GradeTask, Reply
from chorus.reward_server.sandbox.sandbox import find_mechanism

log = logging.getLogger("chorus.reward_server")
_ALWAYS_TOLD = ("compose", "format_weight", "overlong")
_MAX_WARNINGS = 100  # reasons quote the request, so that a client could make new ones for ever


class Service:
    """The state behind the routes: settings, templates, pool, metrics."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.templates = known_templates(settings.templates)
        self.sandbox, self.no_sandbox = find_mechanism()
        self._warned: set[str] = set()
        self.asking = Asking(settings, self.sandbox, self.no_sandbox)
        self.metrics = Metrics(self.asking.kinds)
        self.pools = Pools(settings, lambda reason: self.metrics.worker_restarts.labels(reason).inc())
        self.metrics.workers.set(self.pools.workers)
        self.metrics.queue_items.set_function(lambda: self.pools.unfinished)
        self.metrics.warm_workers.set_function(lambda: self.pools.warm_workers)

    def template(self, name: str, where: str) -> Template:
        if name not in self.templates:
            known = ", ".join(sorted(self.templates))
            raise BadItemError(f"{where}: unknown template {name!r:.80}; known are: {known}")
        return self.templates[name]

    def check_batch(self, n_items: int, field: str) -> None:
        if n_items > self.settings.max_batch:
            limit = self.settings.max_batch
            raise BadItemError(f"{field}: {n_items} items, this server takes {limit} a request; send several")

    def question(self, request: schemas.GradeRequest, where: str, asked: Asked = "grade") -> Question:
        """The graders' tasks for a request, checked."""
        template = None if request.template is None else self.template(request.template, f"{where}template")
        return self.asking.question(request, template, where, asked)

    def graders(self) -> dict[str, Any]:
        """The fields of a GradersResponse."""
        weights = {term.grader: term.weight for term in self.settings.reward.terms}
        own = [
            {"name": g.name, "columns": list(g.columns), "interface": g.interface, "weight": weights.get(g.name)}
            for g in self.settings.graders
        ]
        return {"kinds": list(self.asking.kinds), "graders": own, "shadow": self.settings.shadow or None}

    async def run(self, tasks: Sequence[GradeTask]) -> list[Reply]:
        started = time.perf_counter()
        replies = await self.pools.run(tasks)
        self.metrics.request_seconds.observe(time.perf_counter() - started)
        return replies

    async def cluster(self, request: schemas.ClusterRequest) -> dict[str, Any]:
        """The fields of a ClusterResponse."""
        kind = request.kind
        found = await self.run(
            [GradeTask(kind, text, mode=request.mode, task="extract") for text in request.completions]
        )
        pairs = [(r.answer, r.key) if isinstance(r, Extracted) else (None, "") for r in found]
        answers = tuple(answer for answer, _ in pairs)
        [clustered] = await self.run([GradeTask(kind, task="cluster", answers=answers)])
        if isinstance(clustered, Clusters):
            return {"clusters": list(clustered.numbers), "extracted": list(answers), "method": "equivalence"}
        # One hostile answer must not cost the group its clusters.
        keys = [None if answer is None else key for answer, key in pairs]
        first = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        return {"clusters": [first[key] for key in keys], "extracted": list(answers), "method": "text"}

    async def grade(self, request: schemas.GradeRequest, asked: Asked) -> dict[str, Any]:
        """Graded, scored and composed: the fields of a GradeResponse (and of the explanation)."""
        question = self.question(request, "", asked)
        replies = await self.run(list(question.tasks()))
        return self._respond(request, question.answer(iter(replies)), asked)

    async def grade_batch(self, requests: Sequence[schemas.GradeRequest]) -> list[dict[str, Any]]:
        """The fields of GradeResponses, in order. An item that can't be graded is an error of its own.

        Raises MissingFieldError.
        """
        questions: list[Question | GradeResult] = []
        for i, request in enumerate(requests):
            try:
                questions.append(self.question(request, f"items[{i}]."))
            except MissingFieldError:
                raise
            except (BadItemError, NoSandboxError) as error:
                questions.append(self._refusal(request, str(error).removeprefix(f"items[{i}].")))
        tasks = [task for question in questions if isinstance(question, Question) for task in question.tasks()]
        replies = iter(await self.run(tasks))
        return [
            self._respond(request, Answer(q) if isinstance(q, GradeResult) else q.answer(replies), "grade")
            for request, q in zip(requests, questions, strict=True)
        ]

    def _refusal(self, request: schemas.GradeRequest, reason: str) -> GradeResult:
        if reason not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(reason)
            log.warning("items of a batch can't be graded: %s", reason)
        return GradeResult.failed(f"{request.kind}: not asked", reason, refused=True)

    def _respond(self, request: schemas.GradeRequest, answer: Answer, asked: Asked) -> dict[str, Any]:
        template, result = self.templates.get(request.template or ""), answer.grade
        format = None if template is None else format_score(template, request.completion)
        scores = answer.scores
        if request.kind in self.asking.own:
            scores = {request.kind: result.score, **_named(request.kind, result.parts), **scores}
        parts = compose(self.settings.reward, result.accuracy, format, scores=scores, verdict=result.verdict)
        self._count(request, answer)
        response = {
            "verdict": result.verdict,
            "accuracy": parts.accuracy,
            "format": parts.format,
            "reward": parts.total,
            "extracted": result.extracted,
            "verifier": result.verifier,
            "ms": round(result.ms, 3),
            "reason": answer.reason,
            "refused": result.refused,
        }
        if scores:
            response["scores"] = scores
        if request.sub_answers and template is not None:
            response["sub_answers"] = places(template, request.completion, request.sub_answers)
        if answer.shadow is not None:
            grader, other = answer.shadow
            opinion = {"grader": grader, "verdict": other.verdict, "accuracy": other.accuracy}
            response["shadow"] = opinion | {"reason": other.reason}
        if asked == "explain":
            response |= _explanation(result, template, request.completion, parts)
            response["composition"] = _composition(self.settings.reward)
        return response

    def _count(self, request: schemas.GradeRequest, answer: Answer) -> None:
        m = self.metrics
        for kind, result in ((request.kind, answer.grade), *answer.terms.items()):
            m.grades.labels(kind, result.verdict).inc()
            m.grade_seconds.labels(result.verdict).observe(result.ms / 1000)
        if answer.shadow is not None:
            ours, other = answer.grade, answer.shadow[1]
            known = ours.accuracy is not None and other.accuracy is not None
            agree = (ours.verdict == "correct") == (other.verdict == "correct")
            outcome = "failed" if not known else "agree" if agree else "disagree"
            m.shadow_grades.labels(request.kind, request.template or "", outcome).inc()


def _named(grader: str, parts: Mapping[str, float]) -> dict[str, float]:
    return {f"{grader}.{part}": value for part, value in parts.items()}


def _composition(spec: RewardSpec) -> dict[str, Any]:
    """As settings are told; without the parts that it has not."""
    return {
        key: value
        for key, value in spec.model_dump(mode="json").items()
        if value not in (None, []) or key in _ALWAYS_TOLD
    }


def _explanation(result: GradeResult, template: Template | None, completion: str, parts: RewardParts) -> dict[str, Any]:
    empty = {"extraction": None, "normalised": None, "comparisons": []}
    markers = None if template is None else marker_counts(template, completion)
    return {**(result.explanation or empty), "markers": markers, "parts": _shown(parts)}


def _shown(parts: RewardParts) -> dict[str, float | None]:
    shown = asdict(parts)
    paid, terms = shown.pop("paid"), shown.pop("terms")
    return shown | paid | terms
