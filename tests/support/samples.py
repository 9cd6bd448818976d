"""One valid message of each kind, to start forging from."""

from __future__ import annotations

from typing import Any

from chorus.protocol.messages import (
    Grade,
    Member,
    Message,
    RolloutGroup,
    Sample,
    Sampling,
    SyncOffer,
    SyncReport,
    Task,
    Tensor,
    Timing,
    WeightCheck,
    pack_floats,
    pack_ids,
)

TASK = Task(
    run_id="run", index=0, epoch=0, problem_id="p", kind="math", gold=["1"], template="qwen-math",
    prompt_ids=pack_ids([1, 2]), group_size=2, sampling=Sampling(temperature=1.0, max_tokens=8), min_version=0,
    deadline_s=5.0, admitted_at=1.0,
)  # fmt: skip
GRADE = Grade(verdict="correct", accuracy=1.0, format=1.0)
SAMPLE = Sample(
    token_ids=pack_ids([4, 5]),
    logprobs=pack_floats([-0.5, -1.0]),
    versions=[(1, 0, 1), (1, 1, 1)],
    finish_reason="stop",
    grade=GRADE,
)
GROUP = RolloutGroup(
    task=TASK,
    generator_id="g",
    attempt=1,
    samples=[SAMPLE, SAMPLE],
    timing=Timing(started=1.0, generated=2.0, graded=3.0),
)
MEMBER = Member(
    generator_id="g", state="ready", engine=1, world_size=1, version="1.0", in_flight=0, generated_tokens=0,
    busy_seconds=0.0, uptime_seconds=1.0, last_seen=1.0,
)  # fmt: skip
OFFER = SyncOffer(
    version="1.0", group="g", backend="gloo", store_host="127.0.0.1", store_port=1, world_size=2, timeout_s=1.0,
    bucket_bytes=4096, tensors=[Tensor(name="w", dtype="float32", shape=[2, 3])], temperature=1.0, tolerance=1e-3,
    checks=[WeightCheck(prefix=pack_ids([1]), token_ids=pack_ids([2]), logprobs=pack_floats([-1.0]))],
)  # fmt: skip
REPORT = SyncReport(generator_id="g", version="1.0", group="g", ok=True)
ALL: list[Message] = [TASK, GROUP, MEMBER, OFFER, REPORT]
GRADES: list[dict[str, Any]] = [GRADE.model_dump() | {"verifier": "math", "reason": None}] * 2
