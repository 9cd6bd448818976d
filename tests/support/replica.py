"""A generator's side of the weight sync: real process groups, real bytes, scripted verdicts.

python tests/support/replica.py URL NAME      one as a program, until it is ended
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import redis
import torch
from intake import Intake

from chorus.protocol.ledger import Keys, entries_of
from chorus.protocol.messages import Member, SyncOffer, SyncReport, Version
from chorus.protocol.weights import describe, new_buckets, plan_buckets

if TYPE_CHECKING:
    from chorus.learner.training.distributed import Snapshot


class Replica(threading.Thread):
    """The last one of its verdicts stays. "late": the report is written only when the next offer is there.

    "dies" and "hangs" happen in the middle of a transfer, after its first piece; who hangs does so until `go_on`.
    """

    def __init__(self, url: str, verdicts: tuple[str, ...] = ("ok",), name: str = "g") -> None:
        super().__init__(daemon=True)
        self.client, self.id, self.verdicts = redis.Redis.from_url(url), name, [*verdicts]
        self.keys = Keys("run")
        self.late: SyncReport | None = None
        self.offers: list[SyncOffer] = []
        self.ending, self.go_on = threading.Event(), threading.Event()
        self.engine = 1
        self.intake = Intake()
        self._beat()

    @property
    def received(self) -> dict[str, torch.Tensor]:
        return self.intake.received

    @property
    def groups(self) -> list[str]:
        """That it was asked to join, in order."""
        return [*dict.fromkeys(offer.group for offer in self.offers)]

    def _beat(self) -> None:
        told: Any = self.client.time()
        member = Member(
            generator_id=self.id, state="ready", engine=self.engine, world_size=1, version=None, in_flight=0,
            generated_tokens=0, busy_seconds=0.0, uptime_seconds=1.0, last_seen=float(told[0]),
        )  # fmt: skip
        self.client.hset(self.keys.members, self.id, member.encode())

    def run(self) -> None:
        last = "0"
        while not self.ending.is_set():
            self._beat()
            for id, fields in entries_of(self.client.xread({self.keys.offers(self.id): last}, block=100)):
                last = id.decode()
                self._take(SyncOffer.decode(fields[b"d"]))

    def _take(self, offer: SyncOffer) -> None:
        if self.late is not None:
            self.client.xadd(self.keys.reports, {"d": self.late.encode()})
            self.late = None
        verdict = self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]
        report = SyncReport(generator_id=self.id, version=offer.version, group=offer.group, ok=True)
        try:
            arrived = self._receive(offer, verdict)
        except RuntimeError as error:
            report = report.model_copy(update={"ok": False, "detail": str(error)[:200]})
        else:
            if not arrived:
                return
        if verdict == "refused":
            report = report.model_copy(update={"ok": False, "detail": "weight check failed"})
        if verdict == "late":
            self.late = report
        else:
            self.client.xadd(self.keys.reports, {"d": report.encode()})

    def _receive(self, offer: SyncOffer, verdict: str) -> bool:
        new = offer.group not in self.groups
        self.offers.append(offer)
        if new:
            self.intake.join(offer)
        for _ in self.intake.take(offer):
            if verdict == "dies":
                self.intake.leave()
                self.engine += 1
                self._beat()
                return False
            if verdict == "hangs":
                self.go_on.wait(60)
                return False
        return True


def filled(step: int, sizes: list[tuple[str, int]], bucket_bytes: int, fence: int = 1) -> Snapshot:
    """float32 tensors of these sizes, each filled with the step's number and a tenth of its own place."""
    from chorus.learner.training.distributed import Snapshot  # a replica by itself starts in a third of the time

    plan = plan_buckets(describe([(name, torch.empty(size)) for name, size in sizes], "float32"), bucket_bytes)
    buckets = new_buckets(plan)
    for views in plan.views(buckets):
        for k, (_, view) in enumerate(views):
            view.fill_(step + k / 10)
    return Snapshot(Version(fence=fence, step=step), plan, buckets, [])


if __name__ == "__main__":
    torch.set_num_threads(1)
    Replica(sys.argv[1], name=sys.argv[2]).run()
