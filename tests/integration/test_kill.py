"""kill -9 of everything in one run: it ends, nothing is lost, nothing trained twice.

Of two generators one has the real vLLM, so that there is one to kill; the other keeps the run going meanwhile. The
tests are steps of one story, in order, on the same run; the last one reads the accounts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from liverun import ROOT, LiveRun, end_run
from otherhost import OtherHost, listening
from scriptedlive import start_scripted_run
from tinymodel import save_tiny_model

from chorus.protocol.messages import Member
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps

pytestmark = pytest.mark.slow
STARTS_S = 300.0  # a vLLM that starts on two cores that others use as well has needed 120 s
RELAY = 'learner.fan_out="relay"'  # the real engine passes its weights on to the other generator
SLOWER = (RELAY, "learner.sync_deadline_s=15.0", "staleness.max=6", 'generator.vllm_args=["--enforce-eager"]')
VLLM = "chorus.generator.vllm_process"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRun]:
    folder = tmp_path_factory.mktemp("kill")
    model = save_tiny_model(folder / "model", hidden_size=64, tied=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHORUS_TEST_LEARNER", "dying_learner.py")
        patch.setenv("CHORUS_TEST_CHECKS_WEIGHTS", "1")
        run = start_scripted_run(folder, model, delay_s=1.0, overrides=SLOWER, real=1)
    yield run
    end_run(run)


def real_one(run: LiveRun) -> Member | None:
    """The generator with vLLM, at work."""
    at_work = [m for m in run.members() if m.state == "ready" and time.time() - m.last_seen < 3]
    return next((m for m in at_work if m.generator_id.startswith("gen-0")), None)


def learners(run: LiveRun) -> list[psutil.Process]:
    return [p for p in run.processes("learner") if "dying_learner.py" in " ".join(p.cmdline())]


def open_to_callers(*processes: psutil.Process) -> list[str]:
    """Unix sockets on which any of them waits for somebody to connect."""
    held = {os.path.realpath(fd) for p in processes for fd in Path(f"/proc/{p.pid}/fd").iterdir()}
    inodes = {name.rpartition("socket:")[2].strip("[]") for name in held}
    sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return [" ".join(s) for s in sockets if int(s[3], 16) & 0x10000 and s[6] in inodes]


def trained_with(run: LiveRun, generator: str) -> int:
    """Groups of this generator in the steps so far."""
    whole = list(stored_steps(RunFolder(run.folder)))[:-1]  # the last one may be half written
    groups = [r.group for _, path in whole for r in read_step(path)]
    return sum(group.generator_id == generator for group in groups)


def goes_on(run: LiveRun, steps: int = 2, deadline_s: float = STARTS_S) -> None:
    run.wait_step(run.step() + steps, deadline_s)


def test_a_learner_killed_between_manifest_and_acknowledgement_is_mended_at_resume(story: LiveRun) -> None:
    story.wait_step(4, STARTS_S)
    story.until(lambda: story.processes("learner", "--resume"), "a second learner")
    goes_on(story, steps=4)
    accounts = story.accounts()
    assert accounts.difference == 0, accounts
    assert accounts.durable >= 5 * 4, "the checkpoint whose acknowledgement was cut off counts"


def test_a_killed_vllm_is_started_again_by_its_agent(story: LiveRun) -> None:
    story.until(lambda: real_one(story), "vLLM at work", STARTS_S)
    (agent,) = story.processes("generator", "gen-0")
    before = real_one(story)
    assert before is not None
    assert before.engine == 1
    story.until(lambda: trained_with(story, before.generator_id), "what vLLM sampled, trained", STARTS_S)
    (engine,) = [p for p in agent.children(recursive=True) if VLLM in p.cmdline()]
    engine.kill()
    story.until(
        lambda: (m := real_one(story)) and m.generator_id == before.generator_id and m.engine == 2,
        "a second engine under the same agent, synced and ready",
        STARTS_S,
    )
    assert agent.is_running()
    goes_on(story)


def test_vllm_s_control_has_no_name_and_nothing_of_the_run_can_be_reached_from_another_host(
    story: LiveRun, other_host: OtherHost
) -> None:
    (engine,) = story.processes(VLLM)
    (agent,) = story.processes("generator", "gen-0")
    (control,) = [c.laddr for c in agent.net_connections("unix") if c.laddr]
    assert not Path(control).parent.exists(), "nobody else can come"
    assert open_to_callers(agent, engine) == []
    assert {c.laddr.ip for c in engine.net_connections("inet") if c.status == psutil.CONN_LISTEN} <= {
        "127.0.0.1",
        "::1",
    }
    below = psutil.Process(story.process.pid).children(recursive=True)
    assert other_host.reaches(listening(*below)) == set()


def test_a_killed_grader_and_a_killed_template_of_graders_cost_no_grade(story: LiveRun) -> None:
    template = min(story.processes("chorus.reward_server.pool.worker"), key=lambda process: process.create_time())
    template.children()[0].kill()
    goes_on(story)
    template.kill()
    goes_on(story)
    records = [json.loads(line) for line in (story.folder / "metrics.jsonl").read_text().splitlines()]
    assert sum(r["samples_masked"] for r in records) == 0


def test_a_killed_generator_agent_takes_its_vllm_along_and_comes_back(story: LiveRun) -> None:
    (agent,) = story.processes("generator", "gen-0")
    below = agent.children(recursive=True)
    assert [p for p in below if VLLM in p.cmdline()]
    agent.kill()
    story.until(lambda: not any(p.is_running() and p.status() != "zombie" for p in below), "end of its vLLM", 20)
    story.until(lambda: len(story.processes("generator", "gen-0")) == 1, "a new agent")
    assert story.accounts().difference == 0


def test_a_killed_learner_resumes_and_the_run_ends_with_every_group_trained_exactly_once(story: LiveRun) -> None:
    config = story.config
    config["run"]["steps"] = steps = story.step() + 4
    (story.folder / "config.json").write_text(json.dumps(config))
    (learner,) = learners(story)
    learner.kill()  # its next start finds the new number of steps
    assert story.finish() == 0, story.tail()
    summary = story.summary()
    ledger = summary["ledger"]
    assert summary["steps"] == steps
    assert ledger["outstanding"] == 0
    assert ledger["admitted"] == ledger["trained"] + sum(ledger["dropped"].values())
    trained = Counter(r.entry.index for _, path in stored_steps(RunFolder(story.folder)) for r in read_step(path))
    assert set(trained.values()) == {1}, "trained twice in the surviving lineage"
    assert len(trained) == steps * 4
    assert summary["weights"]["logprob_gap_mean"] <= 1e-3
    assert summary["staleness"]["max"] <= story.config["staleness"]["max"]
    audit = subprocess.run([sys.executable, "-m", "chorus.cli.main", "audit", str(story.folder)], cwd=ROOT)
    assert audit.returncode == 0
