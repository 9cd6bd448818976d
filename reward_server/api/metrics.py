"""Prometheus metrics of the reward server, in a registry of their own."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram, generate_latest

from chorus.protocol.metrics.processes import new_registry
from chorus.reward_server.graders.task import VERDICTS

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """One server's metrics; two apps in one process do not share them."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self.registry = new_registry()
        prefix = "chorus_reward_server_"
        self.grades = Counter(f"{prefix}grades_total", "Grades given.", ["kind", "verdict"], registry=self.registry)
        self.grade_seconds = Histogram(
            f"{prefix}grade_seconds",
            "Time of one grade in its grader, by verdict.",
            ["verdict"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            f"{prefix}request_seconds",
            "Time of one grading request, waiting included.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.workers = Gauge(f"{prefix}workers", "Grader processes that there should be.", registry=self.registry)
        self.queue_items = Gauge(f"{prefix}queue_items", "Grades waiting or in progress.", registry=self.registry)
        self.warm_workers = Gauge(f"{prefix}warm_workers", "Grader processes that can grade.", registry=self.registry)
        self.worker_restarts = Counter(
            f"{prefix}worker_restarts_total",
            "Grader processes replaced.",
            ["reason"],
            registry=self.registry,
        )
        self.refused = Counter(
            f"{prefix}refused_requests_total", "Requests refused.", ["reason"], registry=self.registry
        )
        self.event_loop_lag_seconds = Gauge(
            f"{prefix}event_loop_lag_seconds", "How late the event loop was last.", registry=self.registry
        )
        self.shadow_grades = Counter(
            f"{prefix}shadow_grades_total",
            "Grades that a second grader gave too: agree, disagree, or failed where one of them had no verdict.",
            ["kind", "template", "outcome"],
            registry=self.registry,
        )
        # A counter that is not there looks like one that is broken.
        for reason in ("timeout", "crashed"):
            self.worker_restarts.labels(reason)
        for verdict in VERDICTS:
            self.grade_seconds.labels(verdict)
            for kind in kinds:
                self.grades.labels(kind, verdict)

    def exposition(self) -> bytes:
        """The text that /metrics serves."""
        return generate_latest(self.registry)
