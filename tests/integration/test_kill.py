"""kill -9 of everything in one real run with two generators: it ends, nothing is lost, nothing trained twice.

The tests are steps of one story, in order, on the same run; the last one reads the books.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from liverun import QUICK, ROOT, LiveRun, end_run, start_run
from otherhost import OtherHost, listening

from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.run_folder.rollouts import read_step, stored_steps

STEPS = 60
STARTS_S = 300.0  # two vLLMs that start at once, on two cores that others use as well, have needed 120 s
# The first learner kills itself at its first checkpoint, after the manifest and before the acknowledgements.
DIES_AFTER_MANIFEST = """
import os, signal, sys
from chorus.cli.main import main
from chorus.protocol.ledger import LearnerLedger

if "--resume" not in sys.argv:
    LearnerLedger.durable = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(main(sys.argv[1:]))
"""
DRIVER = f"""
import sys
from dataclasses import replace
from chorus.deploy.launcher import run
from chorus.deploy.services import services_of
from pathlib import Path
from chorus.protocol.config.load import load_config

def services(chosen):
    *others, learner = services_of(chosen)
    return [*others, replace(learner, argv=(sys.executable, "-c", {DIES_AFTER_MANIFEST!r}, *learner.argv[3:]))]

recipe, overrides = sys.argv[1], [word for word in sys.argv[2:] if word != "--set"]
sys.exit(run(load_config(Path(recipe), overrides), recipe, services=services))
"""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, policy: Path) -> Iterator[LiveRun]:
    run = start_run(
        tmp_path_factory.mktemp("kill"),
        f"model.path={policy}",
        *QUICK,
        f"run.steps={STEPS}",
        "generator.replicas=2",
        "generator.lease_s=3.0",
        "learner.checkpoint_every=5",
        "learner.sync_deadline_s=15.0",
        driver=DRIVER,
    )
    yield run
    end_run(run)


def ready(run: LiveRun) -> int:
    return sum(m.state == "ready" and time.time() - m.last_seen < 3 for m in run.members())


def goes_on(run: LiveRun, steps: int = 2, deadline_s: float = STARTS_S) -> None:
    run.wait_step(min(run.step() + steps, STEPS), deadline_s)


def test_a_learner_killed_between_manifest_and_acknowledgement_is_mended_at_resume(story: LiveRun) -> None:
    story.wait_step(4, STARTS_S)
    story.until(lambda: story.processes("learner", "--resume"), "a second learner")
    goes_on(story, steps=4)
    books = story.books()
    assert books.difference == 0, books
    assert books.durable >= 5 * 8, "the checkpoint whose acknowledgement was cut off counts"


def test_a_killed_generator_agent_takes_its_vllm_along_and_comes_back(story: LiveRun) -> None:
    story.until(lambda: ready(story) == 2, "two generators at work", STARTS_S)
    agent = story.processes("generator", "gen-0")[0]
    engine = [p for p in agent.children(recursive=True) if "vllm.entrypoints.openai.api_server" in p.cmdline()]
    below = agent.children(recursive=True)
    assert engine
    agent.kill()
    story.until(lambda: not any(p.is_running() and p.status() != "zombie" for p in below), "end of its vLLM", 20)
    story.until(lambda: len(story.processes("generator", "gen-0")) == 1, "a new agent")
    goes_on(story)
    assert story.books().difference == 0


def test_a_killed_vllm_is_started_again_by_its_agent(story: LiveRun) -> None:
    agent = story.processes("generator", "gen-1")[0]
    name = next(m.generator_id for m in story.members() if m.generator_id.startswith("gen-1"))
    (engine,) = [p for p in agent.children(recursive=True) if "vllm.entrypoints.openai.api_server" in p.cmdline()]
    engine.kill()
    story.until(
        lambda: any(m.generator_id == name and m.engine == 2 and m.state == "ready" for m in story.members()),
        "a second engine under the same agent, synced and ready",
        STARTS_S,
    )
    assert agent.is_running()
    goes_on(story)


def test_vllm_s_control_and_all_else_of_the_run_can_not_be_reached_from_another_host(
    story: LiveRun, other_host: OtherHost
) -> None:
    control = listening(*story.processes("vllm.entrypoints.openai.api_server"))
    assert len(control) >= 1
    assert other_host.reaches(control) == set()
    below = psutil.Process(story.process.pid).children(recursive=True)
    assert other_host.reaches(listening(*below)) == set()


def test_a_killed_reward_worker_costs_no_grade(story: LiveRun) -> None:
    worker = story.processes("chorus.reward_server.pool.worker")[0]
    worker.kill()
    goes_on(story)
    records = [json.loads(line) for line in (story.folder / "metrics.jsonl").read_text().splitlines()]
    assert sum(r["samples_masked"] for r in records) == 0


def test_a_killed_learner_resumes_from_its_checkpoint(story: LiveRun) -> None:
    before = story.step()
    (learner,) = story.processes("learner")
    learner.kill()
    story.until(lambda: [p for p in story.processes("learner") if p.pid != learner.pid], "a new learner")
    story.until(lambda: story.step() > before, "a step beyond the crash", 120)
    assert story.books().difference == 0


def test_the_run_ends_with_every_group_trained_exactly_once(story: LiveRun) -> None:
    assert story.finish() == 0, story.tail()
    summary = story.summary()
    ledger = summary["ledger"]
    assert summary["steps"] == STEPS
    assert ledger["outstanding"] == 0
    assert ledger["admitted"] == ledger["trained"] + sum(ledger["dropped"].values())
    trained = Counter(r.entry.index for _, path in stored_steps(RunFolder(story.folder)) for r in read_step(path))
    assert set(trained.values()) == {1}, "trained twice in the surviving lineage"
    assert len(trained) == STEPS * 8
    assert summary["weights"]["logprob_gap_mean"] <= 1e-3
    assert summary["staleness"]["max"] <= story.config["staleness"]["max"]
    audit = subprocess.run([sys.executable, "-m", "chorus.cli.main", "audit", str(story.folder)], cwd=ROOT)
    assert audit.returncode == 0
