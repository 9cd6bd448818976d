"""What a run came to: summary.json, written at its end.

It is computed from files and Redis alone, so a run whose learner was killed and resumed sums up
like any other.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from typing import Any

import redis

from chorus.learner.metrics.diversity import summary_metrics
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger import Accounts, Keys
from chorus.protocol.messages import Member, MessageError, SyncReport
from chorus.protocol.metrics.step import mean
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.run_folder.folder import RunFolder


def summarize(
    run: RunFolder, config: RunConfig, reports: list[SyncReport], accounts: Accounts, generated_tokens: int
) -> dict[str, Any]:
    """The run in one page; the keys are fixed, tools read them."""
    records = run.records()
    before, after = (read_json(run.evaluation(name)) for name in ("before", "after"))
    started = read_json(run.note)["started_at"]
    seconds = sum(r["seconds"] for r in records)
    return {
        "recipe": config.run.name,
        "wall_seconds": time.time() - started,
        "steps": len(records),
        "updates": sum(r["updates"] for r in records),
        "accuracy": {
            "before": before.get("accuracy"),
            "after": after.get("accuracy"),
            "problems": after.get("problems"),
        },
        "greedy": {"before": before.get("greedy"), "after": after.get("greedy")},
        "format": {"before": before.get("format"), "after": after.get("format")},
        "ledger": {
            "admitted": accounts.admitted,
            "trained": accounts.trained,
            "dropped": accounts.dropped,
            "outstanding": accounts.outstanding,
        },
        "staleness": {
            "target": config.staleness.target,
            "mean": mean(r["staleness_mean"] for r in records),
            "max": max((r["staleness_max"] for r in records if r["staleness_max"] is not None), default=0),
        },
        "weights": {
            "syncs": len(reports),
            "seconds_p50": statistics.median([r.total_s for r in reports]) if reports else None,
            "pause_seconds_p50": statistics.median([r.pause_s for r in reports]) if reports else None,
            "logprob_gap_mean": mean(r.gap_mean for r in reports),
            "logprob_gap_max": max((r.gap_max for r in reports), default=None),
        },
        "tokens": {"generated": generated_tokens, "trained": sum(r["trained_tokens"] or 0 for r in records)},
        "learner_wait_ratio": sum(r["wait_seconds"] for r in records) / seconds if seconds else None,
        "generator_wait_ratio": mean(r["generator_wait_ratio"] for r in records),
        "step_seconds": seconds,
        "mfu": statistics.median(used) if (used := [m for r in records if (m := r.get("mfu"))]) else None,
        "evaluation": {"before": before, "after": after},
        "samples_masked": sum(r["samples_masked"] or 0 for r in records),
        "alarms": [text for r in records for text in r.get("alarms", ())],
        "ratio_off_max": max((r["ratio_off_max"] for r in records if r["ratio_off_max"] is not None), default=None),
        "diversity": summary_metrics(records),
    }


def good_syncs(client: redis.Redis, run_id: str) -> list[SyncReport]:
    """The reports of all syncs so far that went well."""
    reports = []
    entries: Any = client.xrange(Keys(run_id).reports)
    for _, fields in entries:
        try:
            reports.append(SyncReport.decode(fields.get(b"d", b"")))
        except MessageError:
            continue
    return [r for r in reports if r.ok]


class FleetClock:
    """How much of the generators' time was work: the share since the last question."""

    def __init__(self) -> None:
        self._seen: dict[str, Member] = {}
        self.tokens: Counter[str] = Counter()

    def wait_ratio(self, members: list[Member]) -> float | None:
        busy = up = 0.0
        for member in members:
            before = self._seen.get(member.generator_id)
            if before is not None:
                busy += member.busy_seconds - before.busy_seconds
                up += member.uptime_seconds - before.uptime_seconds
            self._seen[member.generator_id] = member
            self.tokens[member.generator_id] = member.generated_tokens
        return max(0.0, 1.0 - busy / up) if up > 0 else None
