"""Names, units and help texts of what the generator and the learner export to Prometheus.

One place, so that dashboards, alerts and the processes agree. The metrics of a training step stand in
protocol/metrics/step.py, the ledger's accounts in protocol/metrics/ledger.py, the reward server's own beside its app.
docs/metrics.md lists all of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from chorus.protocol.messages import MemberState, RolloutGroup
from chorus.protocol.metrics.step import StepMetrics
from chorus.protocol.metrics.waits import Waits, WaitShare
from chorus.protocol.runtime.addresses import all_interfaces
from chorus.protocol.runtime.exits import CannotGoOn

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
_TOKENS = tuple(2**n for n in range(3, 17))
# Exported from the start: of a counter that appears with its first event, Prometheus would not see that event.
_OUTCOMES = ("committed", "twin", "unverified", "no_weights", "failed", "interrupted", "lease_lost", "buried")
_RESULTS = ("ok", "canary_failed", "failed", "outdated", "unreadable")
_FINISHES = ("stop", "length", "abort", "other")
GENERATOR_STATES: tuple[str, ...] = get_args(MemberState)


def new_registry() -> CollectorRegistry:
    """With the process's own CPU time, memory and descriptors in it, as `process_...`."""
    disable_created_metrics()  # a second series for each counter, which nothing here reads
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class GeneratorMetrics:
    """Counters of one generator agent; `generator/probes.py` serves its registry."""

    def __init__(self) -> None:
        self.registry = r = new_registry()
        prefix = "chorus_generator"
        self.run = Gauge(
            f"{prefix}_run_info", "1; the run it works for, and its id there", ["run", "generator"], registry=r
        )
        self.waits = Waits(prefix, r)
        self.lag_s = Gauge(f"{prefix}_event_loop_lag_seconds", "How late the event loop was last", registry=r)
        self.state = Gauge(f"{prefix}_state", "1 for the state that the generator is in", ["state"], registry=r)
        self.busy_s = Counter(f"{prefix}_busy_seconds", "Time with at least one group in work", registry=r)
        self.tokens = Counter(f"{prefix}_tokens", "Completion tokens sampled", registry=r)
        lengths = Histogram(
            f"{prefix}_completion_tokens", "Length of a completion, sampled", ["finish"], buckets=_TOKENS, registry=r
        )
        self._lengths = {finish: lengths.labels(finish) for finish in _FINISHES}
        self.ungraded = Counter(
            f"{prefix}_ungraded_samples", "Samples that the verifier failed to grade, or could not", registry=r
        )
        self.groups = Counter(f"{prefix}_groups", "Groups by what became of them", ["outcome"], registry=r)
        self.in_flight = Gauge(f"{prefix}_groups_in_flight", "Groups being worked on", registry=r)
        self.generate_s = _histogram(f"{prefix}_generate_seconds", "Sampling of one group", r)
        self.grade_s = _histogram(f"{prefix}_grade_seconds", "Grading of one group, retries included", r)
        self.sync_s = _histogram(f"{prefix}_sync_seconds", "One weight update, weight check included", r)
        self.pause_s = _histogram(f"{prefix}_sync_pause_seconds", "Sampling stood still for new weights", r)
        self.transfer_s = _histogram(
            f"{prefix}_sync_transfer_seconds", "Weights came and were made ready, beside the sampling", r
        )
        self.syncs = Counter(f"{prefix}_syncs", "Weight updates by result", ["result"], registry=r)
        self.gap = Gauge(
            f"{prefix}_logprob_gap_nats",
            "Mean distance of the engine's log-probabilities to the learner's, after the last update",
            registry=r,
        )
        self.tolerance = Gauge(
            f"{prefix}_logprob_tolerance_nats", "A larger gap puts the generator into quarantine", registry=r
        )
        self.version = Gauge(f"{prefix}_version_step", "Step of the weights being sampled", registry=r)
        self.engine_starts = Counter(f"{prefix}_engine_starts", "Starts of the vLLM engine", registry=r)
        for outcome in _OUTCOMES:
            self.groups.labels(outcome)
        for result in _RESULTS:
            self.syncs.labels(result)

    def sampled(self, completions: Iterable[tuple[int, str]]) -> None:
        """Count completions by (tokens, finish reason)."""
        for tokens, finish in completions:
            self._lengths[finish if finish in self._lengths else "other"].observe(tokens)

    def heartbeat(self, state: str, in_flight: int, busy_s: float) -> None:
        """`busy_s`: since the last one."""
        for name in GENERATOR_STATES:
            self.state.labels(name).set(name == state)
        self.in_flight.set(in_flight)
        self.busy_s.inc(busy_s)

    def synced(self, pause_s: float, transfer_s: float, total_s: float) -> None:
        self.pause_s.observe(pause_s)
        self.transfer_s.observe(transfer_s)
        self.sync_s.observe(total_s)


class LearnerMetrics:
    """Counters of the learner's rank 0."""

    def __init__(self, port: int = 0) -> None:
        self.registry = r = new_registry()
        prefix = "chorus_learner"
        self.run = Gauge(f"{prefix}_run_info", "1; the run that it trains", ["run", "recipe"], registry=r)
        self.waits = Waits(prefix, r)
        self.wait_share = WaitShare()
        Gauge(
            f"{prefix}_wait_ratio",
            "Share of the last steps' time, the running one's included, that passed waiting for rollouts",
            registry=r,
        ).set_function(self.wait_share.ratio)
        self.step = Gauge(f"{prefix}_step", "Optimizer steps done", registry=r)
        self.steps_planned = Gauge(f"{prefix}_steps_planned", "Steps after which the run ends", registry=r)
        self.durable_step = Gauge(f"{prefix}_durable_step", "Step of the newest checkpoint", registry=r)
        self.fence = Gauge(f"{prefix}_fence", "Starts of this run's learner so far", registry=r)
        self._finished_at = Gauge(
            f"{prefix}_last_step_timestamp_seconds", "When the last step ended, unix time; 0: none yet", registry=r
        )
        self._step_s = _histogram(f"{prefix}_step_seconds", "One step, waiting included", r)
        self.checkpoint_s = _histogram(f"{prefix}_checkpoint_seconds", "Writing one checkpoint", r)
        self.dropped = Counter(
            f"{prefix}_groups_dropped", "Groups that this learner dropped, by reason", ["reason"], registry=r
        )
        self._staleness = Histogram(
            f"{prefix}_staleness_steps",
            "Steps between the weights of a group's oldest token and those it trains",
            buckets=range(17),
            registry=r,
        )
        self._lengths = Histogram(
            f"{prefix}_completion_tokens", "Length of a trained completion", ["answer"], buckets=_TOKENS, registry=r
        )
        self._record = StepMetrics(r)
        self._alarm = Gauge(f"{prefix}_alarm", "1 while a sign of a collapse holds", ["alarm"], registry=r)
        self._evaluation = Gauge(
            f"{prefix}_evaluation_ratio", "Held-out accuracy and format score", ["when", "figure"], registry=r
        )
        self.transfer_s = _histogram(f"{prefix}_weight_sync_seconds", "Weights to one replica, from offer to report", r)
        self.sent_bytes = Counter(
            f"{prefix}_weight_sync_sent_bytes", "Weights that the learner itself sent, whole or as a delta", registry=r
        )
        self.sync_failures = Counter(f"{prefix}_weight_sync_failures", "Syncs that failed", registry=r)
        self.refused = Counter(
            f"{prefix}_refused_messages", "Members, sync reports and rollouts that were refused", ["kind"], registry=r
        )
        _serve(port, r)

    def step_done(self, record: Mapping[str, Any], groups: Sequence[tuple[RolloutGroup, int]]) -> None:
        """Export a step's record. `groups`: what it trained, with the staleness of each in steps."""
        self.step.set(record["step"])
        self._finished_at.set(time.time())
        self._step_s.observe(record["seconds"])
        self.wait_share.end(record["wait_seconds"], record["seconds"])
        for group, staleness in groups:
            self._staleness.observe(staleness)
            for sample in group.samples:
                self._lengths.labels(_answer(sample.grade.accuracy)).observe(sample.n_tokens)
        self._record.set(record)

    def alarms(self, names: Iterable[str], active: Mapping[str, str]) -> None:
        for name in names:
            self._alarm.labels(name).set(name in active)

    def evaluated(self, when: str, result: Mapping[str, float]) -> None:
        for name in ("accuracy", "greedy", "format"):
            self._evaluation.labels(when, name).set(result.get(name, math.nan))


def _answer(accuracy: float | None) -> str:
    return "ungraded" if accuracy is None else "right" if accuracy == 1.0 else "wrong"


def _histogram(name: str, text: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, text, buckets=_SECONDS, registry=registry)


def _serve(port: int, registry: CollectorRegistry) -> None:
    if port:
        try:
            start_http_server(port, addr=all_interfaces(), registry=registry)
        except OSError as error:
            raise CannotGoOn(f"metrics_port {port}: can't listen on it ({error.strerror}); choose another") from None
