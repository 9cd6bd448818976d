"""Names, units and help texts of what the generator and the learner export to Prometheus.

One place, so that dashboards, alerts and the processes agree. The reward server's stand beside its app.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from protocol.exits import CannotGoOn
from protocol.waits import Waits

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class GeneratorMetrics:
    """Counters of one generator agent."""

    def __init__(self, port: int = 0) -> None:
        r = CollectorRegistry()
        self.waits = Waits("chorus_generator", r)
        self.tokens = Counter("chorus_generator_tokens", "Completion tokens sampled", registry=r)
        self.groups = Counter("chorus_generator_groups", "Groups by what became of them", ["outcome"], registry=r)
        self.in_flight = Gauge("chorus_generator_groups_in_flight", "Groups being worked on", registry=r)
        self.generate_s = Histogram(
            "chorus_generator_generate_seconds", "Sampling of one group", buckets=_SECONDS, registry=r
        )
        self.grade_s = Histogram(
            "chorus_generator_grade_seconds",
            "Grading of one group, retries included",
            buckets=_SECONDS,
            registry=r,
        )
        self.pause_s = Histogram(
            "chorus_generator_sync_pause_seconds",
            "Sampling stood still for new weights",
            buckets=_SECONDS,
            registry=r,
        )
        self.syncs = Counter("chorus_generator_syncs", "Weight updates by result", ["result"], registry=r)
        self.gap = Gauge("chorus_generator_logprob_gap", "Canary: mean distance to the learner", registry=r)
        self.version = Gauge("chorus_generator_version_step", "Step of the weights being sampled", registry=r)
        self.engine_starts = Counter("chorus_generator_engine_starts", "Starts of the vLLM server", registry=r)
        _serve(port, r)


class LearnerMetrics:
    """Counters of the learner's rank 0."""

    def __init__(self, port: int = 0) -> None:
        r = CollectorRegistry()
        self.waits = Waits("chorus_learner", r)
        self.step = Gauge("chorus_learner_step", "Optimizer steps done", registry=r)
        self.step_s = Histogram(
            "chorus_learner_step_seconds", "One step, waiting included", buckets=_SECONDS, registry=r
        )
        self.wait_s = Counter("chorus_learner_wait_seconds", "Waiting for rollouts", registry=r)
        self.tokens = Counter("chorus_learner_trained_tokens", "Completion tokens trained on", registry=r)
        self.dropped = Counter("chorus_learner_groups_dropped", "Groups dropped by reason", ["reason"], registry=r)
        self.staleness = Histogram(
            "chorus_learner_staleness_steps", "Oldest token's age of a sample", buckets=range(17), registry=r
        )
        self.outstanding = Gauge("chorus_learner_groups_outstanding", "Admitted, not trained, not dropped", registry=r)
        self.transfer_s = Histogram(
            "chorus_learner_weight_sync_seconds", "Offer to report, one replica", buckets=_SECONDS, registry=r
        )
        self.refused = Counter(
            "chorus_learner_refused_messages", "Members, reports, rollouts that were refused", ["kind"], registry=r
        )
        self.sync_failures = Counter("chorus_learner_weight_sync_failures", "Syncs that failed", registry=r)
        self.figures = Gauge(
            "chorus_learner_figure", "The last step's figures, as in metrics.jsonl", ["name"], registry=r
        )
        _serve(port, r)


def _serve(port: int, registry: CollectorRegistry) -> None:
    if port:
        try:
            start_http_server(port, addr="0.0.0.0", registry=registry)
        except OSError as error:
            raise CannotGoOn(f"metrics_port {port}: can't listen on it ({error.strerror}); choose another") from None
