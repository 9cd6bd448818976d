"""`make play-test`: the pods of overlay `cpu` in podman's `kube play`, from nothing to nothing.

    kubectl kustomize ─▶ what podman does not take changed, and said ─▶ stand-in bases ─▶ images ─▶ claims, secret, pods
    ─▶ probes ─▶ 3 steps by two real vLLM ─▶ what containers may do ─▶ the reward server killed, back ─▶ a generator
    drained ─▶ the learner asked to stop ─▶ a new pod of its Job goes on to the end ─▶ audited ─▶ nothing left

There is no API server, scheduler or kubelet in it, and nothing that enforces a NetworkPolicy. Where no podman works it
prints `play-test: SKIPPED` and why, and ends with 0. --data FOLDER keeps podman's images there for the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "tests" / "deploy"), str(ROOT / "tests" / "deploy" / "compose")]

from bases import python_base, root_file_system, served_wheels  # noqa: E402
from drive import Drive, DriveError, NothingHereError  # noqa: E402  # pyright: ignore[reportAttributeAccessIssue]
from podman import Podman  # noqa: E402
from transform import Played, Transform  # noqa: E402

TEST = Drive("play-test")
KUBERNETES = ROOT / "deploy" / "kubernetes"
RUN = "demo"
LIMIT_S = 2400.0  # half of it may be the images: podman copies layers slowly
# A run small enough to watch; as in compose-test.
SETTINGS = {
    "CHORUS_RUN__STEPS": "100000",
    "CHORUS_LEARNER__GROUPS_PER_STEP": "16",
    "CHORUS_LEARNER__CHECKPOINT_EVERY": "2",
    "CHORUS_EVALUATION__PROBLEMS": "16",
    "CHORUS_GENERATOR__MAX_NUM_SEQS": "128",
}
# Who it is, whether it may write to the root, capabilities, new privileges, system calls, ports that the kernel picks.
LOOK = """\
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
def writes(path):
    try:
        open(path, "w").close()
        return True
    except OSError:
        return False
told = {"user": os.getuid(), "group": os.getgid()}
told["root"] = [path for path in ("/x", "/etc/x", "/opt/x", "/run/x") if writes(path)]
told |= {key: status[key].strip() for key in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
told["ports"] = open("/proc/sys/net/ipv4/ip_local_port_range").read().split()
print(json.dumps(told))
"""


class Cluster:
    """The overlay's pods, by name."""

    def __init__(self, podman: Podman, transform: Transform) -> None:
        self.podman, self.transform = podman, transform
        self.pods: dict[str, Played] = {}

    def play(self, pod: Played, deadline_s: float = 120) -> None:
        self.pods[pod.pod] = pod
        self.podman.play(pod, deadline_s)

    def asked(self, pod: str, kind: str) -> bool:
        """A probe of the pod's one container, as a kubelet would ask it."""
        [(container, probes)] = self.pods[pod].probes.items()
        return self.podman.holds(self.pods[pod].container(container), *probes[kind])

    def main(self, pod: str) -> str:
        [container] = self.pods[pod].probes
        return self.pods[pod].container(container)

    def steps(self, pod: str) -> int:
        """Optimizer steps that the learner has recorded."""
        text = self.podman.inside(self.main(pod), "cat", f"/runs/{RUN}/metrics.jsonl", may_fail=True)
        return json.loads(text.strip().splitlines()[-1])["step"] if text.strip() else 0

    def stop(self, pod: str) -> tuple[int, float]:
        """SIGTERM and as long as its grace period; the exit status, and seconds."""
        began = time.monotonic()
        grace_s = self.pods[pod].grace_s
        self.podman.call("stop", "--time", str(grace_s), self.main(pod), deadline_s=grace_s + 30)
        return self.podman.state(self.main(pod))["State"]["ExitCode"], time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="keep podman's images here")
    parser.add_argument("--patience", type=float, default=1.0, help="lengthens every wait, on a busy machine")
    parser.add_argument("--changes", action="store_true", help="print what is changed in the overlay, and end")
    asked = parser.parse_args()
    if asked.changes:
        transform = overlay()
        told(transform, made(transform))
        return 0
    scratch = Path(tempfile.mkdtemp(prefix="chorus-play-"))
    podman = Podman(TEST, scratch, asked.data or scratch / "data", LIMIT_S, asked.patience)

    def work() -> None:
        transform = overlay()
        with TEST.phase("podman"):
            podman.start(sysctl(transform))
        build(podman, scratch)
        run(Cluster(podman, transform))

    status = TEST.run(work, podman.stop, "all removed")
    if remains := podman.remains():
        print(f"play-test: FAILED: still there: {', '.join(remains)}", file=sys.stderr)
        return 1
    return status


def overlay() -> Transform:
    keys = ("redis-password", "reward-token")
    return Transform(rendered(), {key: secrets.token_hex(16) for key in keys}, SETTINGS)


def rendered() -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        raise NothingHereError("no `kubectl` here, which renders the overlay")
    command = ["kubectl", "kustomize", str(KUBERNETES / "overlays" / "cpu")]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout))


def sysctl(transform: Transform) -> str:
    """The one sysctl that learner and generators have."""
    specs = [o["spec"]["template"]["spec"] for o in transform.objects if "template" in o.get("spec", {})]
    every = [sysctl for spec in specs for sysctl in spec["securityContext"].get("sysctls", [])]
    [(name, value)] = {(sysctl["name"], sysctl["value"]) for sysctl in every}
    return f"{name}={value}"


def made(transform: Transform) -> dict[str, Played]:
    names = ("redis-0", "reward-server", "learner-0", "generator-0", "generator-1")
    return {name: transform.pod(name) for name in names}


def told(transform: Transform, pods: dict[str, Played]) -> None:
    transform.claims()
    TEST.say(
        f"of overlay cpu: {', '.join(p.pod for p in pods.values())}; not played: {', '.join(transform.left_out())}"
    )
    for how, where in transform.changes.items():
        TEST.say(f"changed: {how} ({', '.join(where)})")


def build(podman: Podman, scratch: Path) -> None:
    with served_wheels() as wheels_url:
        with TEST.phase("a stand-in for the official Python image"):
            podman.import_base(root_file_system(scratch), python_base(), wheels_url)
        with TEST.phase("podman build, and a stand-in for Redis"), ThreadPoolExecutor(2) as pool:
            redis = next(image for image in images() if image.startswith("redis:"))
            small: Future = pool.submit(podman.build, "redis.Dockerfile", redis)
            podman.build("deploy/docker/cpu.Dockerfile", "chorus-learner:cpu", "learner")
            podman.build("deploy/docker/cpu.Dockerfile", "chorus-generator:cpu", "generator")
            small.result()
            podman.build("deploy/docker/reward-server.Dockerfile", "chorus-reward-server:latest")
    TEST.say(podman.images())


def images() -> set[str]:
    pods = (o["spec"]["template"]["spec"] for o in rendered() if "template" in o.get("spec", {}))
    return {c["image"] for spec in pods for c in [*spec.get("initContainers", []), *spec["containers"]]}


def run(cluster: Cluster) -> None:
    podman, transform = cluster.podman, cluster.transform
    pods = made(transform)
    told(transform, pods)
    with TEST.phase("claims and the secret made; Redis and the reward server ready"):
        podman.make(transform.claims())
        podman.secret("chorus-secrets", transform.secrets)
        for name in ("redis-0", "reward-server"):
            cluster.play(pods[name])
        podman.wait("Redis ready", lambda: cluster.asked("redis-0", "readinessProbe"), 60)
        podman.wait("the reward server ready", lambda: cluster.asked("reward-server-pod-0", "readinessProbe"), 90)
    with TEST.phase("three pods start at once: one's init container builds the model, the others wait for it"):
        three = ("learner-0", "generator-0", "generator-1")
        with ThreadPoolExecutor(len(three)) as pool:
            for started in [pool.submit(cluster.play, pods[name], 500) for name in three]:
                started.result()
        ends = {name: podman.state(f"{name}-model")["State"]["ExitCode"] for name in three}
        TEST.check(set(ends.values()) == {0}, "all three init containers ended with 0")
    with TEST.phase("three steps trained with two real vLLM"):
        first_steps(cluster)
    look_around(cluster)
    with TEST.phase("the reward server killed; it comes back by itself, and steps go on"):
        kill_the_reward_server(cluster)
    with TEST.phase("generator-1 asked with SIGTERM: drained, while training goes on"):
        drain(cluster)
    with TEST.phase("the learner asked with SIGTERM; a new pod of the Job goes on from its checkpoint to the end"):
        move_the_learner(cluster)
    with TEST.phase("the results, through the pod of results.yaml"):
        results(cluster)
    with TEST.phase("the last generator drained"):
        status, seconds = cluster.stop("generator-0")
        TEST.check(status == 0, f"it ended with 0, after {seconds:.1f} s")


def first_steps(cluster: Cluster) -> None:
    podman = cluster.podman
    podman.wait("the agent listens", lambda: cluster.asked("generator-0", "startupProbe"), 120)
    early = cluster.asked("generator-0", "readinessProbe")
    TEST.check(not early, "generator-0 lives and is not ready, before it has weights")
    podman.wait("step 3", lambda: cluster.steps("learner-0") >= 3, 400)
    for pod in ("generator-0", "generator-1", "learner-0"):
        podman.wait(f"{pod} ready", lambda pod=pod: cluster.asked(pod, "readinessProbe"), 60)
    alive = [kind for pod in cluster.pods for kind in ("startupProbe", "livenessProbe") if healthy(cluster, pod, kind)]
    TEST.check(len(alive) == 8, "redis-0, the reward server and both generators: startup and liveness probes hold")


def healthy(cluster: Cluster, pod: str, kind: str) -> bool:
    """A liveness probe as podman itself has understood it."""
    [probes] = cluster.pods[pod].probes.values()
    if kind not in probes:
        return False
    if kind != "livenessProbe":
        return cluster.asked(pod, kind)
    try:
        cluster.podman.call("healthcheck", "run", cluster.main(pod))
    except DriveError as error:
        raise DriveError(f"{pod}: {error}") from None
    return True


def look_around(cluster: Cluster) -> None:
    podman = cluster.podman
    for pod in cluster.pods:
        told = json.loads(podman.inside(cluster.main(pod), "python3", "-c", LOOK))
        user = 999 if pod == "redis-0" else 10001
        nothing = {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
        seen = {key: told[key] for key in nothing}
        TEST.check(
            (told["user"], told["group"], told["root"], seen) == (user, user, [], nothing),
            f"{pod}: user {user}, root read-only, no capability, no new privileges, a filter of system calls",
        )
        if pod.startswith(("learner", "generator")):
            TEST.check(told["ports"] == ["40000", "44999"], f"{pod}: the kernel picks ports {'-'.join(told['ports'])}")
        limit = podman.state(cluster.main(pod))["HostConfig"]
        TEST.say(f"{pod}: limits {limit['Memory'] >> 20} MiB, {limit['NanoCpus'] / 1e9:g} cores (0: none)")
    refused = podman.inside("redis-0-redis", "env", "-u", "REDISCLI_AUTH", "redis-cli", "ping", may_fail=True)
    TEST.check("NOAUTH" in refused, "Redis refuses who has not the secret's password")
    line = podman.inside("redis-0-redis", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    TEST.check(cluster.transform.secrets["redis-password"] not in line, "it is among no arguments in Redis' pod")


def kill_the_reward_server(cluster: Cluster) -> None:
    podman, before = cluster.podman, cluster.steps("learner-0")
    container = cluster.main("reward-server-pod-0")
    os.kill(podman.state(container)["State"]["Pid"], signal.SIGKILL)
    podman.wait("a restart", lambda: podman.state(container)["RestartCount"] == 1, 60)
    podman.wait("ready again", lambda: cluster.asked("reward-server-pod-0", "readinessProbe"), 60)
    podman.wait("two further steps", lambda: cluster.steps("learner-0") >= before + 2, 120)


def drain(cluster: Cluster) -> None:
    podman = cluster.podman
    status, seconds = cluster.stop("generator-1")
    log = podman.log("generator-1-generator")
    lines = [line for line in log.splitlines() if "drain" in line]
    TEST.say("\n".join(lines))
    TEST.check(
        status == 0 and any("drained" in line for line in lines), f"drained, and ended with 0 after {seconds:.1f} s"
    )
    before = cluster.steps("learner-0")
    podman.wait("two further steps", lambda: cluster.steps("learner-0") >= before + 2, 120)


def move_the_learner(cluster: Cluster) -> None:
    podman = cluster.podman
    before = cluster.steps("learner-0")
    status, seconds = cluster.stop("learner-0")
    TEST.check(status == 143, f"asked after step {before}, it ended with 143 after {seconds:.1f} s")
    TEST.say("\n".join(podman.log("learner-0-learner").splitlines()[-2:]))
    podman.remove(cluster.pods.pop("learner-0"))
    steps = before + 5
    cluster.play(cluster.transform.pod("learner-0", CHORUS_RUN__STEPS=str(steps)), 200)
    ended = podman.wait("the learner's end", lambda: ended_state(podman, "learner-0-learner"), 300)
    TEST.check(ended["ExitCode"] == 0, f"the next pod ended with 0 after {steps} steps")
    command = f'chorus audit --redis "$CHORUS_REDIS__URL" {RUN}'
    live = podman.inside("generator-0-generator", "sh", "-c", command)
    TEST.check("balanced" in live and "OUT OF" not in live, live.strip().splitlines()[0])


def ended_state(podman: Podman, container: str) -> dict[str, Any] | None:
    state = podman.state(container)["State"]
    return state if state["Status"] == "exited" else None


def results(cluster: Cluster) -> None:
    podman = cluster.podman
    cluster.play(cluster.transform.given(yaml.safe_load((KUBERNETES / "results.yaml").read_text())))
    names = podman.inside("results-results", "ls", f"/runs/{RUN}").split()
    TEST.check("summary.json" in names, f"/runs/{RUN} holds {', '.join(names)}")
    words = ("--rm", "--network", "none", "--volume", "runs:/runs", "chorus-learner:cpu", "audit", f"/runs/{RUN}")
    audit = podman.call("run", *words)
    TEST.check("balanced" in audit and "OUT OF" not in audit, audit.strip())


if __name__ == "__main__":
    sys.exit(main())
