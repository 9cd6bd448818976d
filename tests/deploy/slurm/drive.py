"""`make slurm-test`: a run as jobs of a real Slurm with three nodes, from nothing to nothing.

    Slurm ─▶ submit ─▶ 3 steps ─▶ 2 generators ─▶ 4 ─▶ 1 ─▶ one preempted, back ─▶ the learner's node killed
    ─▶ the head queued again, and the learner ─▶ the run finished, audited ─▶ Slurm gone

The learner trains the demo's starter; engines are scripted, but with --real 1 the first generator's is a real vLLM.
--short: submit, three steps and the end, of a model as it was drawn. Where no Slurm can be started it prints
`slurm-test: SKIPPED` and why, and ends with 0.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import RedisError

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "tests" / "deploy"), str(ROOT / "tests" / "support")]

from drive import Drive, DriveError, arguments, holders, told_by_arguments  # noqa: E402  # pyright: ignore[reportAttributeAccessIssue]
from lab import Lab  # noqa: E402
from tinymodel import save_tiny_model  # noqa: E402

from chorus.protocol.config.load import load_config  # noqa: E402
from chorus.protocol.ledger import Keys  # noqa: E402
from chorus.protocol.messages import Member  # noqa: E402
from chorus.protocol.runtime.redis import glance, server_time  # noqa: E402

TEST = Drive("slurm-test")
RECIPE = ROOT / "recipes" / "demo.toml"
STEPS = 1_000_000  # until the test has seen enough; then it sets how many there are
SETTINGS = (
    *("evaluation.problems=0", "learner.groups_per_step=4", "sampling.group_size=4", "learner.checkpoint_every=3"),
    *("generator.lease_s=3.0", "learner.keep_checkpoints=2", "reward.workers=1", "alarms.flat_steps=0"),
    *("learner.grace_s=20", f"run.steps={STEPS}", "trackers.tensorboard=false", "doctor.steps=0"),
)
# What the nodes call instead of `chorus`: of the first array `real` generators have a vLLM; all else is as it is.
WRAPPER = """\
#!/bin/bash
if [ "$1" = generator ]; then
  echo "$SLURM_ARRAY_JOB_ID" > "$0.$$" && ln "$0.$$" "$0.first" 2> /dev/null
  [ "$(cat "$0.first")" = "$SLURM_ARRAY_JOB_ID" ] && real={real} || real=0
fi
if [ "$1" = generator ] && [ "$SLURM_ARRAY_TASK_ID" -ge "$real" ]; then
  CHORUS_TEST_DELAY_S=0.3 PYTHONPATH={root}/tests/support exec {python} {root}/tests/support/receiving.py "$@"
fi
exec {python} -P -m chorus.cli.main "$@"
"""


class Run:
    """The run as its folder and `chorus` show it."""

    def __init__(self, lab: Lab, runs: Path, real: int) -> None:
        self.lab = lab
        self.runs = runs
        self.engine_s = 120 if real else 0  # a real one takes so much longer to start

    @property
    def folder(self) -> Path:
        return next(self.runs.glob("*/run.json")).parent

    def chorus(self, *words: str, deadline_s: float = 120) -> str:
        return self.lab.call(sys.executable, "-P", "-m", "chorus.cli.main", *words, deadline_s=deadline_s)

    def jobs(self, role: str) -> list[str]:
        rows = [line.split() for line in (self.folder / "slurm" / "jobs").read_text().splitlines()]
        return [number for name, number in rows if name == role]

    def step(self) -> int:
        try:
            lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        except OSError:
            return 0
        return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)

    def ready(self) -> set[str]:
        """Generators with verified weights, seen within the last seconds."""
        with self.redis() as client:
            now = server_time(client)
            found: Any = client.hgetall(Keys(self.folder.name).members)
        members = map(Member.decode, found.values())
        return {m.generator_id for m in members if m.state == "ready" and now - m.last_seen < 5}

    def fence(self) -> int:
        """It grows with every start of a learner; what an older one still sends is refused."""
        with self.redis() as client:
            told: Any = client.get(Keys(self.folder.name).fence)
        return int(told or 0)

    def redis(self) -> Any:
        return glance(json.loads((self.folder / "config.json").read_text())["redis"]["url"])

    def further(self, n: int = 2, deadline_s: float = 60) -> None:
        before = self.step()
        self.wait(f"{n} further steps", lambda: self.step() >= before + n, deadline_s)

    def log(self, name: str) -> str:
        path = self.folder / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait(self, what: str, ready: Callable[[], Any], deadline_s: float) -> None:
        try:
            self.lab.wait(what, lambda: _now(ready), deadline_s)
        except DriveError as error:
            logs = sorted((self.folder / "logs").glob("*.log")) if list(self.runs.glob("*/run.json")) else []
            tail = "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)
            raise DriveError(f"{error}\n{tail}") from None


def _now(ready: Callable[[], Any]) -> Any:
    """False while Redis is away."""
    try:
        return ready()
    except RedisError:
        return False


def main() -> int:
    parser = arguments(__doc__, "so many generators of the first array are real ones")
    parser.add_argument("--learner-nodes", type=int, default=2)
    parser.add_argument("--short", action="store_true", help="without what scales, preempts and kills")
    asked = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="chorus-slurm-"))
    lab = Lab(scratch)

    def work() -> None:
        with TEST.phase("a Slurm of three nodes"):
            lab.start()
        drive(Run(lab, scratch / "runs", asked.real), asked)

    def clean() -> None:
        lab.stop()
        if asked.keep:
            TEST.say(str(scratch))
        else:
            shutil.rmtree(scratch, ignore_errors=True)

    return TEST.run(work, clean, "Slurm stopped")


def drive(run: Run, asked: argparse.Namespace) -> None:
    with TEST.phase("chorus slurm submit: three steps trained over the nodes"):
        submit(run, asked)
    look_around(run)
    if not asked.short:
        take_away(run)
    with TEST.phase("the run finished; nothing is left in the queue, accounts balanced"):
        finish(run)


def take_away(run: Run) -> None:
    with TEST.phase("generators 2 -> 4 by one more array, 4 -> 1 drained"):
        resize(run)
    with TEST.phase("a generator preempted by an urgent job; it drains, is queued again and samples"):
        preempt(run)
    with TEST.phase("the learner's node killed; the job is queued again, the old learner fenced"):
        lose_the_learner(run)
    with TEST.phase("the head queued again; its Redis comes back with all that it held"):
        move_the_head(run)


def submit(run: Run, asked: argparse.Namespace) -> None:
    wrapper = run.lab.folder / "chorus"
    wrapper.write_text(WRAPPER.format(root=ROOT, python=sys.executable, real=asked.real))
    wrapper.chmod(0o755)
    settings = [*SETTINGS, f"run.dir={run.runs}", f"model.path={asked.model or policy(run, asked.short)}", *asked.set]
    words = ["slurm", "submit", str(RECIPE), "--generators", "2", "--chorus", str(wrapper)]
    words += ["--learner-nodes", str(asked.learner_nodes), "--partition", "base"]
    words += ["--generator-partition", "spot", "--preemptible"]
    print(run.chorus(*words, *(word for s in settings for word in ("--set", s))), end="")
    run.wait("three steps", lambda: run.step() >= 3, 120 + run.engine_s)


def policy(run: Run, short: bool) -> Path:
    """As it was drawn, or the demo's starter, which takes minutes to build."""
    if short:
        return save_tiny_model(run.lab.folder / "model", templates=load_config(RECIPE).templates.names)
    built = run.chorus("starter", str(RECIPE), "--cache", str(ROOT / "runs" / ".cache"), deadline_s=400)
    return Path(built.strip().splitlines()[-1])


def look_around(run: Run) -> None:
    told = run.chorus("slurm", "status", str(run.folder))
    TEST.say(told)
    TEST.check(len(re.findall(r" RUNNING ", told)) == 4, "a head, a learner and two generators run")
    password, token = ((run.folder / "slurm" / name).read_text().strip() for name in ("redis-password", "reward-token"))
    TEST.check(
        holders(run.folder, password) == ["config.json", "slurm/redis-password", "slurm/redis.conf"]
        and holders(run.folder, token) == ["slurm/reward-token"],
        "the secrets stand in files of mode 600 alone, in no script and no log",
    )
    TEST.check(told_by_arguments(password, token) == [], "no secret is among any process's arguments")


def resize(run: Run) -> None:
    print(run.chorus("slurm", "scale", str(run.folder), "4"), end="")
    run.wait("four generators ready", lambda: len(run.ready()) == 4, 60 + run.engine_s)
    print(run.chorus("slurm", "scale", str(run.folder), "1"), end="")
    run.wait("one generator left", lambda: len(run.ready()) == 1, 60)
    left = [job for array in run.jobs("generator") for job in elements(run, array)]
    run.wait("one element left", lambda: len([j for a in run.jobs("generator") for j in elements(run, a)]) == 1, 30)
    run.further()
    TEST.check(len(left) >= 1, f"one element is in the queue: {left[0]}")


def elements(run: Run, array: str) -> list[str]:
    rows = run.lab.call("squeue", "-h", "-r", "-j", array, "-o", "%i %t", may_fail=True).splitlines()
    return [name for name, state in (row.split() for row in rows) if state != "CG"]


def preempt(run: Run) -> None:
    element = elements(run, run.jobs("generator")[0])[0]
    before, node = run.ready(), run.lab.node_of(element)
    urgent = run.lab.folder / "urgent.sbatch"
    urgent.write_text("#!/bin/bash\nsleep 600\n")
    cpus = run.lab.idle_cpus(node) + 1  # one more than there is without taking the generator's
    options = ("--parsable", "-p", "urgent", "-w", node, f"--cpus-per-task={cpus}", "--output=/dev/null")
    job = run.lab.call("sbatch", *options, str(urgent)).strip()
    run.wait("the urgent job runs", lambda: run.lab.state(job) == "RUNNING", 60)
    TEST.check(f"gen-{element}" in "".join(before), f"{element} had sampled on {node}")
    run.lab.call("scancel", job)
    run.wait("the generator samples again", lambda: len(run.ready() - before) == 1, 90 + run.engine_s)
    TEST.check(run.lab.restarts(element) >= 1, f"{element} was queued again under its number")
    run.further(deadline_s=90)


def lose_the_learner(run: Run) -> None:
    """And the head with it, where both are on one node: slurmd alone dies, all that it has started lives on unseen."""
    (job,), (head,) = run.jobs("learner"), run.jobs("head")
    fence, restarts = run.fence(), {name: run.lab.restarts(name) for name in (job, head)}
    node = re.findall(r"n\[?(\d)", run.lab.node_of(job))[0]
    began = time.monotonic()
    run.lab.kill_node(f"n{node}")
    run.wait("the job queued again", lambda: run.lab.restarts(job) > restarts[job], 60)
    run.wait("the learner at work elsewhere", lambda: run.lab.state(job) == "RUNNING", 60)
    now = run.lab.node_of(job)
    TEST.check(node not in now, f"the learner was on n{node} and is on {now}, {time.monotonic() - began:.0f} s later")
    run.wait("a learner with a later fence", lambda: run.fence() > fence, 120)
    run.further(3, deadline_s=90)
    moved = run.lab.restarts(head) > restarts[head]
    TEST.check(
        True, f"steps again after {time.monotonic() - began:.0f} s{'; the head had to move, too' if moved else ''}"
    )
    run.lab.start_node(f"n{node}")
    run.wait("three nodes", lambda: all(state in ("idle", "mix", "alloc") for state in run.lab.nodes().values()), 30)


def move_the_head(run: Run) -> None:
    (job,) = run.jobs("head")
    restarts, began = run.lab.restarts(job), time.monotonic()
    run.lab.call("scontrol", "requeue", job)
    run.wait("the head queued again", lambda: run.lab.restarts(job) > restarts, 60)
    run.wait("the head at work", lambda: run.lab.state(job) == "RUNNING" and run.ready(), 90)
    run.further(3, deadline_s=120)
    TEST.say(f"steps again after {time.monotonic() - began:.0f} s")


def finish(run: Run) -> None:
    steps = run.step() + 4
    path = run.folder / "config.json"
    fields = json.loads(path.read_text())
    fields["run"]["steps"] = steps
    path.write_text(json.dumps(fields, indent=2))
    (job,) = run.jobs("learner")
    run.lab.call("scancel", "--batch", "--signal=TERM", job)  # as before the end of its time
    run.wait("an empty queue", lambda: not run.lab.call("squeue", "-h", may_fail=True).strip(), 120)
    over = (run.folder / "slurm" / "stop").read_text().strip()
    TEST.check(over == "finished", "the run ended by itself, and all its jobs with it")
    told = run.chorus("audit", str(run.folder))
    TEST.check("balanced" in told and "OUT OF" not in told, told.strip().replace(str(run.folder), "audit"))
    TEST.check(run.step() == steps, f"it ended after step {steps}")


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
