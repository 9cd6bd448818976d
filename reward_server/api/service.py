"""The state behind the routes: settings, templates, pool, metrics; and what a grade becomes on its way out."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from chorus.protocol.rewards import RewardParts, compose
from chorus.protocol.templates.load import load_templates
from chorus.protocol.templates.score import format_score, marker_counts
from chorus.protocol.templates.template import Template
from chorus.reward_server.api import schemas
from chorus.reward_server.api.metrics import Metrics
from chorus.reward_server.api.settings import Settings
from chorus.reward_server.graders.task import Asked, Clusters, Extracted, GradeResult, GradeTask, Program, Reply
from chorus.reward_server.pool.pool import GraderPool
from chorus.reward_server.sandbox.sandbox import find_mechanism

log = logging.getLogger("chorus.reward_server")
_MAX_WARNINGS = 100  # reasons quote the request, so that a client could make new ones for ever


class BadItemError(ValueError):
    """A request that is well formed and still cannot be graded; the message says which field and why."""


class MissingFieldError(BadItemError):
    """A field that the item's kind needs is not there: the body is none that this service takes."""


class NoSandboxError(Exception):
    """A program to run, and nowhere safe to run it; the message says what was tried."""


class Service:
    """The state behind the routes: settings, templates, pool, metrics."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.templates = load_templates(settings.templates)
        self.metrics = Metrics()
        self.sandbox, self.no_sandbox = find_mechanism()
        self._warned: set[str] = set()
        self.pool = GraderPool(
            workers=settings.workers,
            timeout_s=settings.timeout_s,
            memory_bytes=settings.memory_bytes,
            max_queue=settings.max_queue,
            spares=settings.spares,
            on_restart=lambda reason: self.metrics.worker_restarts.labels(reason).inc(),
        )
        self.metrics.workers.set(settings.workers)
        self.metrics.queue_items.set_function(lambda: self.pool.unfinished)
        self.metrics.warm_workers.set_function(lambda: self.pool.warm_workers)

    def template(self, name: str, where: str) -> Template:
        if name not in self.templates:
            known = ", ".join(sorted(self.templates))
            raise BadItemError(f"{where}: unknown template {name!r:.80}; known are: {known}")
        return self.templates[name]

    def check_batch(self, n_items: int, field: str) -> None:
        if n_items > self.settings.max_batch:
            limit = self.settings.max_batch
            raise BadItemError(f"{field}: {n_items} items, this server takes {limit} a request; send several")

    def item(self, request: schemas.GradeRequest, where: str, asked: Asked = "grade") -> GradeTask:
        """The grader's task for a request, checked."""
        template = None if request.template is None else self.template(request.template, f"{where}template")
        if request.kind == "code":
            return GradeTask("code", request.completion, task=asked, program=self._program(request, where))
        if request.gold is None:
            raise MissingFieldError(f"{where}gold: Field required")
        golds = (request.gold,) if isinstance(request.gold, str) else tuple(request.gold)
        if any(not gold.strip() for gold in golds):
            raise BadItemError(f"{where}gold: an empty gold matches nothing; give the answer")
        return GradeTask(
            request.kind,
            request.completion,
            golds,
            request.mode,
            asked,
            options=tuple(request.options or ()),
            markers=tuple(template.markers) if template else (),
            prefill=template.prefill if template else "",
            percent_sign_optional=self.settings.percent_sign_optional,
            unfinished_reasoning=self.settings.unfinished_reasoning,
        )

    def _program(self, request: schemas.GradeRequest, where: str) -> Program:
        if not request.tests:
            raise MissingFieldError(f"{where}tests: kind 'code' is graded by tests; give at least one")
        if self.sandbox is None:
            raise NoSandboxError(f"{where}kind: 'code' needs a sandbox, and this server has none ({self.no_sandbox})")
        try:
            tests = json.dumps([dict(test) for test in request.tests])  # msgpack knows no integers over 64 bits
        except RecursionError as error:
            raise BadItemError(f"{where}tests: nested too deeply") from error
        return Program(tests, self.sandbox, self.settings.timeout_s, request.scoring)

    async def run(self, tasks: Sequence[GradeTask]) -> list[Reply]:
        started = time.perf_counter()
        replies = await self.pool.run(tasks)
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
        [reply] = await self.run([self.item(request, "", asked)])
        return self._respond(request, _graded(reply), asked)

    async def grade_batch(self, requests: Sequence[schemas.GradeRequest]) -> list[dict[str, Any]]:
        """The fields of GradeResponses, in order. An item that can't be graded is an error of its own.

        Raises MissingFieldError.
        """
        items: list[GradeTask | GradeResult] = []
        for i, request in enumerate(requests):
            try:
                items.append(self.item(request, f"items[{i}]."))
            except MissingFieldError:
                raise
            except (BadItemError, NoSandboxError) as error:
                items.append(self._refusal(request, str(error).removeprefix(f"items[{i}].")))
        replies = iter(await self.run([item for item in items if isinstance(item, GradeTask)]))
        return [
            self._respond(request, item if isinstance(item, GradeResult) else _graded(next(replies)), "grade")
            for request, item in zip(requests, items, strict=True)
        ]

    def _refusal(self, request: schemas.GradeRequest, reason: str) -> GradeResult:
        if reason not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(reason)
            log.warning("items of a batch can't be graded: %s", reason)
        return GradeResult.failed(f"{request.kind}: not asked", reason, refused=True)

    def _respond(self, request: schemas.GradeRequest, result: GradeResult, asked: Asked) -> dict[str, Any]:
        template = self.templates.get(request.template or "")
        format = None if template is None else format_score(template, request.completion)
        parts = compose(self.settings.reward, result.accuracy, format)
        self.metrics.grades.labels(request.kind, result.verdict).inc()
        self.metrics.grade_seconds.labels(result.verdict).observe(result.ms / 1000)
        response = {
            "verdict": result.verdict,
            "accuracy": parts.accuracy,
            "format": parts.format,
            "reward": parts.total,
            "extracted": result.extracted,
            "verifier": result.verifier,
            "ms": round(result.ms, 3),
            "reason": result.reason,
            "refused": result.refused,
        }
        if asked == "explain":
            response |= _explanation(result, template, request.completion, parts)
            response["composition"] = self.settings.reward.model_dump()
        return response


def _graded(reply: Reply) -> GradeResult:
    if not isinstance(reply, GradeResult):
        raise TypeError(f"{type(reply).__name__} is no grade")
    return reply


def _explanation(result: GradeResult, template: Template | None, completion: str, parts: RewardParts) -> dict[str, Any]:
    empty = {"extraction": None, "normalised": None, "comparisons": []}
    markers = None if template is None else marker_counts(template, completion)
    return {**(result.explanation or empty), "markers": markers, "parts": asdict(parts)}
