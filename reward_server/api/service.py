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
from chorus.reward_server.pool.pool import GraderPool
from chorus.reward_server.sandbox.sandbox import find_mechanism

log = logging.getLogger("chorus.reward_server")
_ACCURACY = {"correct": 1.0, "wrong": 0.0, "no_answer": 0.0}
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

    def item(self, request: schemas.GradeRequest, where: str, task: str = "grade") -> dict[str, Any]:
        """The grader's task for a request, checked."""
        if request.template is not None:
            self.template(request.template, f"{where}template")
        if request.kind == "code":
            return self._program(request, where) | {"task": task}
        if request.gold is None:
            raise MissingFieldError(f"{where}gold: Field required")
        golds = [request.gold] if isinstance(request.gold, str) else request.gold
        if any(not gold.strip() for gold in golds):
            raise BadItemError(f"{where}gold: an empty gold matches nothing; give the answer")
        item = request.model_dump(include={"completion", "kind", "mode", "options"})
        return item | {"task": task, "golds": golds}

    def _program(self, request: schemas.GradeRequest, where: str) -> dict[str, Any]:
        if not request.tests:
            raise MissingFieldError(f"{where}tests: kind 'code' is graded by tests; give at least one")
        if self.sandbox is None:
            raise NoSandboxError(f"{where}kind: 'code' needs a sandbox, and this server has none ({self.no_sandbox})")
        try:
            tests = json.dumps([dict(test) for test in request.tests])  # msgpack knows no integers over 64 bits
        except RecursionError as error:
            raise BadItemError(f"{where}tests: nested too deeply") from error
        item = request.model_dump(include={"completion", "kind", "scoring"})
        return item | {"tests": tests, "sandbox": self.sandbox, "timeout_s": self.settings.timeout_s}

    async def run(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        started = time.perf_counter()
        results = await self.pool.run(items)
        self.metrics.request_seconds.observe(time.perf_counter() - started)
        return results

    async def grade(self, request: schemas.GradeRequest, task: str) -> dict[str, Any]:
        """Graded, scored and composed: the fields of a GradeResponse (and of the explanation)."""
        [result] = await self.run([self.item(request, "", task)])
        return self._respond(request, result, task)

    async def grade_batch(self, requests: Sequence[schemas.GradeRequest]) -> list[dict[str, Any]]:
        """The fields of GradeResponses, in order. An item that can't be graded is an error of its own.

        Raises MissingFieldError.
        """
        items: list[dict[str, Any] | None] = []
        refusals: list[dict[str, Any]] = []
        for i, request in enumerate(requests):
            try:
                items.append(self.item(request, f"items[{i}]."))
            except MissingFieldError:
                raise
            except (BadItemError, NoSandboxError) as error:
                items.append(None)
                refusals.append(self._refusal(request, str(error).removeprefix(f"items[{i}].")))
        refused = iter(refusals)
        graded = iter(await self.run([item for item in items if item is not None]))
        return [
            self._respond(request, next(refused if item is None else graded), "grade")
            for request, item in zip(requests, items, strict=True)
        ]

    def _refusal(self, request: schemas.GradeRequest, reason: str) -> dict[str, Any]:
        if reason not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(reason)
            log.warning("items of a batch can't be graded: %s", reason)
        return {"failure": "error", "reason": reason, "verifier": f"{request.kind}: not asked", "refused": True}

    def _respond(self, request: schemas.GradeRequest, result: dict[str, Any], task: str) -> dict[str, Any]:
        verdict = result.get("verdict") or result["failure"]
        template = self.templates.get(request.template or "")
        format = None if template is None else format_score(template, request.completion)
        parts = compose(self.settings.reward, result.get("accuracy", _ACCURACY.get(verdict)), format)
        self.metrics.grades.labels(request.kind, verdict).inc()
        self.metrics.grade_seconds.labels(verdict).observe(result.get("ms", 0.0) / 1000)
        response = {
            "verdict": verdict,
            "accuracy": parts.accuracy,
            "format": parts.format,
            "reward": parts.total,
            "extracted": result.get("extracted"),
            "verifier": result.get("verifier", f"{request.kind}: pool"),
            "ms": round(result.get("ms", 0.0), 3),
            "reason": result.get("reason"),
            "refused": result.get("refused", False),
        }
        if task == "explain":
            response |= _explanation(result, template, request.completion, parts)
            response["composition"] = self.settings.reward.model_dump()
        return response


def _explanation(
    result: dict[str, Any], template: Template | None, completion: str, parts: RewardParts
) -> dict[str, Any]:
    empty = {"extraction": None, "normalised": None, "comparisons": []}
    markers = None if template is None else marker_counts(template, completion)
    return {**result.get("explanation", empty), "markers": markers, "parts": asdict(parts)}
