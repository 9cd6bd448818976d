"""Slurm's scripts and jobs, with programs that stand in for Slurm's own: what they are told is noted, and counts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from chorus.cli.main import main
from chorus.deploy.slurm import run as slurm
from chorus.deploy.slurm.head import serve
from chorus.deploy.slurm.run import Files
from chorus.deploy.slurm.scripts import Wishes, scripts
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.ledger.lease import await_free, leased
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.exits import CannotGoOn

ROOT = Path(__file__).parents[3]
Calls = Callable[[], list[str]]
DEMO = ROOT / "recipes" / "demo.toml"
# Notes how it was called; says what the file `<name>.says` holds, and ends with the next number of `<name>.ends`.
STAND_IN = """#!/bin/bash
name=$(basename "$0")
echo "$name $*" >> calls
[ -e "$name.says" ] && cat "$name.says"
[ -e "$name.ends" ] || exit 0
status=$(head -n 1 "$name.ends")
sed -i 1d "$name.ends"
exit "${status:-0}"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What Slurm was told, in a folder where it is a handful of stand-ins."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sbatch", "squeue", "scancel", "scontrol", "srun", "sleep"):
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)

    def told() -> list[str]:
        return (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []

    return told


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path) -> RunConfig:
    return load_config(DEMO, [f"model.path={tiny_model}", f"run.dir={tmp_path}", 'templates.names=["qwen-math"]'], {})


def written(config: RunConfig, folder: Path, wishes: Wishes) -> dict[str, str]:
    (folder / "slurm").mkdir(parents=True)
    (folder / "logs").mkdir()
    texts = scripts(config, folder, folder.name, wishes)
    for name, text in texts.items():
        (folder / "slurm" / name).write_text(text)
    (folder / "slurm" / "reward-token").write_text("t\n")
    (folder / "slurm" / "jobs").write_text("head 7\nlearner 8\ngenerator 9\n")
    return texts


WISHES = (
    Wishes(),
    Wishes(learner_nodes=2, learner_gpus=4, generator_gpus=2, time="1:00:00", partition="p", account="a", qos="q"),
    Wishes(preemptible=True, generator_partition="spot", container="chorus.sif", sbatch=("--mem=4G",)),
    Wishes(learner_nodes=2, container="registry#chorus:1"),
)


@pytest.mark.parametrize("wishes", WISHES, ids=lambda w: w.container or str(w.learner_nodes))
def test_scripts_are_bash_and_every_option_stands_before_the_first_command(
    wishes: Wishes, config: RunConfig, tmp_path: Path
) -> None:
    for name, text in written(config, tmp_path / "run", wishes).items():
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name
        if name.endswith(".sbatch"):
            head, _, rest = text.partition("\nsource ")
            assert "#SBATCH --requeue" in head
            assert "#SBATCH" not in rest


def test_options_say_what_was_wished(config: RunConfig, tmp_path: Path) -> None:
    wishes = WISHES[1]
    texts = scripts(config, tmp_path, "mine", wishes)
    for text in (texts["head.sbatch"], texts["learner.sbatch"], texts["generator.sbatch"]):
        for option in ("--time=1:00:00", "--partition=p", "--account=a", "--qos=q"):
            assert f"#SBATCH {option}\n" in text
    assert "#SBATCH --nodes=2\n#SBATCH --gpus-per-node=4\n" in texts["learner.sbatch"]
    assert "#SBATCH --gpus-per-node=2\n" in texts["generator.sbatch"]
    assert "--gpus" not in texts["head.sbatch"]
    assert re.search(r"\$CHORUS slurm ranks \S+ -- \\\n +--nnodes 2 ", texts["learner.sbatch"])
    assert '--rdzv-id "$RUN" --rdzv-conf "rank=$SLURM_NODEID"' in texts["learner.sbatch"]
    assert "--nproc-per-node 4" in texts["learner.sbatch"]
    spot = scripts(config, tmp_path, "mine", WISHES[2])
    assert "--partition=spot\n" in spot["generator.sbatch"]
    assert "--nice=1000\n" in spot["generator.sbatch"]
    assert "spot" not in spot["learner.sbatch"]
    assert "nice" not in spot["learner.sbatch"]


def test_a_job_is_told_before_its_time_is_over_as_long_as_its_work_may_take(config: RunConfig, tmp_path: Path) -> None:
    """A learner's grace and a generator's drain, and a minute."""
    slow = config.model_copy(update={"learner": config.learner.model_copy(update={"grace_s": 400.0})})
    texts = scripts(slow, tmp_path, "mine", Wishes())
    seconds = {n: int(re.findall(r"--signal=B:TERM@(\d+)", t)[0]) for n, t in texts.items() if n != "job.sh"}
    assert seconds["learner.sbatch"] == 460
    assert seconds["generator.sbatch"] >= 120


@pytest.mark.parametrize(
    ("image", "form"),
    [("chorus.sif", "apptainer exec --nv "), ("registry#chorus:1", "--container-image='registry#chorus:1' ")],
)
def test_in_a_container_every_step_sees_the_run_s_folder(
    image: str, form: str, config: RunConfig, tmp_path: Path
) -> None:
    text = scripts(config, tmp_path / "runs" / "mine", "mine", Wishes(container=image))["job.sh"]
    (srun,) = [line for line in text.splitlines() if line.startswith("  srun ")]
    assert form in srun
    assert str(tmp_path / "runs") in srun
    assert "chorus=(chorus)\n" in text


# -- what the scripts do -----------------------------------------------------------------------------------


def played(folder: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the run's as Slurm would."""
    env = os.environ | {
        "SLURM_JOB_ID": "8",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURMD_NODENAME": "n1",
        **environment,
    }
    return subprocess.run(
        ["bash", str(folder / "slurm" / script)], env=env, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture
def run(config: RunConfig, tmp_path: Path, redis_url: str, calls: Calls) -> Path:
    """A run's folder with scripts, whose head answers."""
    folder = tmp_path / "run"
    written(config, folder, Wishes())
    (folder / "slurm" / "head").write_text("127.0.0.1 " + redis_url.rpartition(":")[2] + "\n")
    (tmp_path / "scontrol.says").write_text("NodeAddr=10.0.0.1 JobState=RUNNING Restarts=0 \n")
    (tmp_path / "squeue.says").write_text("9_0\n")
    return folder


def test_a_finished_learner_ends_the_run_and_its_generators(run: Path, calls: Calls, tmp_path: Path) -> None:
    assert played(run, "learner.sbatch").returncode == 0
    assert (run / "slurm" / "stop").read_text() == "finished\n"
    assert calls()[-2:] == ["scancel --quiet --state=PENDING 9", "scancel --quiet --batch --signal=TERM 9"]
    assert not [call for call in calls() if "requeue" in call]


def test_a_learner_that_leaves_its_node_is_queued_again(run: Path, calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "srun.ends").write_text("143\n")
    played(run, "learner.sbatch")
    assert "scontrol requeue 8" in calls()
    assert not (run / "slurm" / "stop").exists()


def test_one_that_is_cancelled_is_not(run: Path, calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "srun.ends").write_text("143\n")
    (run / "slurm" / "stop").write_text("cancelled\n")
    assert played(run, "learner.sbatch").returncode == 0
    assert not [call for call in calls() if "requeue" in call]
    (run / "slurm" / "stop").unlink()
    (run / "slurm" / "stop-9_1").touch()
    (tmp_path / "srun.ends").write_text("0\n")
    element = {"SLURM_JOB_ID": "11", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "1"}
    assert played(run, "generator.sbatch", **element).returncode == 0
    assert not [call for call in calls() if "requeue" in call]
    (run / "slurm" / "stop-9_1").unlink()
    played(run, "generator.sbatch", **element)
    assert "scontrol requeue 9_1" in calls()


def test_a_crash_is_tried_again_five_times_and_then_ends_the_run(run: Path, calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "srun.ends").write_text("1\n" * 9)
    assert played(run, "learner.sbatch").returncode == 1
    assert len([call for call in calls() if call.startswith("srun")]) == 6
    assert (run / "slurm" / "stop").read_text().startswith("the learner ended with 1")


def test_what_is_wrong_for_good_is_tried_once(run: Path, calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "srun.ends").write_text("3\n")
    assert played(run, "learner.sbatch").returncode == 3
    assert len([call for call in calls() if call.startswith("srun")]) == 1


def test_a_learner_without_a_generator_left_is_queued_again(run: Path, calls: Calls, tmp_path: Path) -> None:
    """It gives up, with 3, when nothing comes to train on; here its engine takes the last generator's line away."""
    (tmp_path / "srun.ends").write_text("3\n")
    (tmp_path / "bin" / "srun").write_text(STAND_IN.replace('exit "${', ': > squeue.says\nexit "${'))
    played(run, "learner.sbatch")
    assert "scontrol requeue 8" in calls()


def test_an_older_start_of_a_job_that_lives_on_unseen_decides_nothing(run: Path, calls: Calls, tmp_path: Path) -> None:
    """Slurm has lost its node and started the job again: that start has the claim."""
    (tmp_path / "srun.ends").write_text("3\n")
    newer = f"echo 8.1 > {run}/slurm/claim-learner\n"
    (tmp_path / "bin" / "srun").write_text(STAND_IN.replace('exit "${', newer + 'exit "${'))
    assert played(run, "learner.sbatch").returncode == 0
    assert not (run / "slurm" / "stop").exists()
    assert not [call for call in calls() if "requeue" in call]


@pytest.mark.parametrize("told", ["JobState=PENDING Restarts=0 ", "JobState=RUNNING Restarts=1 "])
def test_srun_that_lost_its_node_is_not_taken_for_a_finished_run(
    told: str, run: Path, calls: Calls, tmp_path: Path
) -> None:
    """It ends with 0, as after the last step; Slurm has queued the job again, whose next start is not disturbed."""
    lost = STAND_IN.replace('[ -e "$name.ends"', f"echo '{told}' > scontrol.says\n[ -e \"$name.ends\"")
    (tmp_path / "bin" / "srun").write_text(lost)
    for script, status in (("learner.sbatch", 0), ("learner.sbatch", 1), ("generator.sbatch", 0)):
        (tmp_path / "scontrol.says").write_text("NodeAddr=10.0.0.1 JobState=RUNNING Restarts=0 \n")
        (tmp_path / "srun.ends").write_text(f"{status}\n")
        assert played(run, script).returncode == 0
    assert len([call for call in calls() if call.startswith("srun")]) == 3
    assert not (run / "slurm" / "stop").exists()
    assert not [call for call in calls() if "scancel" in call or "requeue" in call]


def test_a_step_hears_of_it_when_its_job_is_told(run: Path, calls: Calls, tmp_path: Path) -> None:
    """With the element's own name: the number of an array's last element is the whole array's."""
    told = STAND_IN.replace('exit "${', 'kill -TERM $PPID\n/bin/sleep 0.3\nexit "${')
    (tmp_path / "bin" / "srun").write_text(told)
    (tmp_path / "srun.ends").write_text("0\n")
    played(run, "generator.sbatch", SLURM_JOB_ID="9", SLURM_ARRAY_JOB_ID="9", SLURM_ARRAY_TASK_ID="0")
    assert "scancel --quiet --signal=TERM 9_0" in calls()
    assert "scontrol requeue 9_0" in calls()


# -- submit, scale, cancel ---------------------------------------------------------------------------------


def test_submit_makes_secrets_of_its_own_and_hides_them(config: RunConfig, tmp_path: Path, calls: Calls) -> None:
    found = []
    (tmp_path / "sbatch.says").write_text("41;lab\n")
    for name in ("one", "other"):
        (tmp_path / name / "logs").mkdir(parents=True)
        slurm.submit(config, DEMO, RunFolder(tmp_path / name), Wishes(generators=3), False)
        files = Files(RunFolder(tmp_path / name))
        found += [files.password.read_text().strip(), files.token.read_text().strip()]
        for path in (files.password, files.token, files.run.config):
            assert path.stat().st_mode & 0o077 == 0
    assert len(set(found)) == 4
    assert min(map(len, found)) >= 48
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.suffix in (".sbatch", ".sh")]
    assert not [secret for secret in found for text in [*texts, *calls()] if secret in text]


def test_submit_lets_learner_and_generators_wait_for_the_head(config: RunConfig, tmp_path: Path, calls: Calls) -> None:
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "sbatch.says").write_text("41\n")
    submitted = slurm.submit(config, DEMO, RunFolder(tmp_path / "run"), Wishes(generators=3), False)
    assert submitted == [("head", "41"), ("learner", "41"), ("generator", "41")]
    head, learner, generator = [call for call in calls() if call.startswith("sbatch")]
    assert "--dependency" not in head
    assert head.endswith("/head.sbatch")
    assert "--dependency=after:41" in learner
    assert "--dependency=after:41 --array=0-2" in generator


def test_a_submission_that_slurm_refuses_leaves_nothing_in_the_queue(
    config: RunConfig, tmp_path: Path, calls: Calls
) -> None:
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "sbatch.says").write_text("41\n")
    (tmp_path / "sbatch.ends").write_text("0\n1\n")
    with pytest.raises(CannotGoOn, match=r"^sbatch: Slurm refuses: "):
        slurm.submit(config, DEMO, RunFolder(tmp_path / "run"), Wishes(), False)
    assert calls()[-1] == "scancel --quiet 41"


def test_scale_grows_by_an_array_of_what_is_missing(run: Path, calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "squeue.says").write_text("9_0|RUNNING|n1|1:00|None\n9_1|RUNNING|n2|1:00|None\n50|RUNNING|n3|1|None\n")
    (tmp_path / "sbatch.says").write_text("12\n")
    assert slurm.scale(RunFolder(run), 5) == (["12_0", "12_1", "12_2"], [])
    assert f"sbatch --parsable --array=0-2 {run}/slurm/generator.sbatch" in calls()
    assert Files(RunFolder(run)).numbers("generator") == ["9", "12"]


def test_scale_shrinks_by_those_that_wait_then_by_the_newest_which_drain(
    run: Path, calls: Calls, tmp_path: Path
) -> None:
    with (run / "slurm" / "jobs").open("a") as file:
        file.write("generator 12\n")
    rows = "12_1|PENDING||0:00|Resources\n12_0|RUNNING|n3|1|None\n9_1|RUNNING|n2|1|None\n9_0|RUNNING|n1|1|None\n"
    (tmp_path / "squeue.says").write_text(rows)
    assert slurm.scale(RunFolder(run), 1) == ([], ["12_1", "12_0", "9_1"])
    told = [call for call in calls() if call.startswith("scancel")]
    assert told == [
        "scancel --quiet 12_1",
        "scancel --quiet --batch --signal=TERM 12_0",
        "scancel --quiet --batch --signal=TERM 9_1",
    ]
    assert [job.id for job in slurm.generators(Files(RunFolder(run)))] == ["9_0"], "what drains is counted no more"


def test_cancel_lets_the_head_end_last(run: Path, calls: Calls, tmp_path: Path) -> None:
    rows = "7|RUNNING|n1|1|None\n8|RUNNING|n1|1|None\n9_0|RUNNING|n2|1|None\n9_1|PENDING||0|Priority\n"
    (tmp_path / "squeue.says").write_text(rows)
    slurm.cancel(RunFolder(run))
    assert [call for call in calls() if call.startswith("scancel")] == [
        "scancel --quiet --batch --signal=TERM 8",
        "scancel --quiet --batch --signal=TERM 9_0",
        "scancel --quiet 9_1",
    ]
    assert (run / "slurm" / "stop").exists()
    with pytest.raises(CannotGoOn, match="submit --resume"):
        slurm.scale(RunFolder(run), 3)


def test_print_shows_the_scripts_and_makes_nothing(
    config: RunConfig, tiny_model: Path, tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    words = ["slurm", "submit", str(DEMO), "--print", "--set", f"run.dir={runs}", "--generators", "4"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"===== {name}" in shown for name in ("job.sh", "head.sbatch", "learner.sbatch", "generator.sbatch"))
    assert not runs.exists()
    assert calls() == []


def test_status_shows_jobs_by_role(
    run: Path, config: RunConfig, calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    rows = "7|RUNNING|n1|1:02|None\n9_1|PENDING||0:00|Priority\n9_0|RUNNING|n2|1:00|None\n"
    (tmp_path / "squeue.says").write_text(rows)
    assert main(["slurm", "status", str(run)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[-3:]]
    assert lines == [
        ["head", "7", "RUNNING", "n1", "1:02"],
        ["generator", "9_0", "RUNNING", "n2", "1:00"],
        ["generator", "9_1", "PENDING", "0:00", "Priority"],
    ]


# -- the head, and the learner's lease ---------------------------------------------------------------------


def test_the_head_keeps_its_password_out_of_every_argument_and_tells_where_it_answers(
    run: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(RunFolder(run))
    fields = config.model_dump(mode="json")
    fields["reward"]["url"] = "http://127.0.0.1:9"
    (run / "config.json").write_text(json.dumps(fields))
    (run / "run.json").write_text(json.dumps({"own_redis": True, "own_reward_server": False}))
    files.password.write_text("open-sesame\n")
    (files.folder / "claim-head").write_text("7.0\n")
    seen: list[str] = []

    def looked(url: str, run_id: str) -> bool:
        host, port, start = files.head.read_text().split()
        assert start == "7.0"
        for password in ("", "wrong", "open-sesame"):
            try:
                redis.Redis(host, int(port), password=password or None).ping()
                seen.append(password)
            except redis.RedisError:
                pass
        for process in psutil.process_iter(["cmdline"]):
            if any("open-sesame" in word for word in process.info["cmdline"] or ()):
                seen.append("in an argument")
        return True

    monkeypatch.setattr("chorus.deploy.slurm.head._is_quiet", looked)
    files.stop.write_text("finished\n")
    assert serve(RunFolder(run), "127.0.0.1", "7.0") == 0
    assert seen == ["open-sesame"]
    url = json.loads((run / "config.json").read_text())["redis"]["url"]
    assert url.startswith("redis://:open-sesame@127.0.0.1:")
    assert (run / "config.json").stat().st_mode & 0o077 == 0


def test_a_head_that_is_not_the_newest_start_of_its_job_ends(run: Path, config: RunConfig) -> None:
    (run / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    (run / "run.json").write_text(json.dumps({"own_redis": True, "own_reward_server": False}))
    (run / "slurm" / "redis-password").write_text("x\n")
    (run / "slurm" / "claim-head").write_text("7.1\n")
    assert serve(RunFolder(run), "127.0.0.1", "7.0") == 0
    assert not (run / "slurm" / "redis.conf").exists()


def test_a_learner_s_lease_falls_to_a_later_start_of_its_job_alone(
    client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    with leased(client, client, "mine", tmp_path):  # this process lives, and prolongs it
        monkeypatch.setenv("SLURM_JOB_ID", "9")
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        with pytest.raises(CannotGoOn, match="going on already"):
            await_free(client, "mine")
        monkeypatch.setenv("SLURM_JOB_ID", "8")
        await_free(client, "mine")


def test_a_node_of_the_learner_s_job_hands_its_words_to_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `--chorus` names: its interpreter is the one that has torch."""
    words = ["--nnodes", "2", "--rdzv-conf", "rank=1", "-m", "chorus.cli.main", "learner", "--config", "c.json"]
    config = str(Path(__file__).parents[3] / "recipes" / "demo.toml")
    called: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, argv: called.append(argv))
    main(["slurm", "ranks", config, "--", *words])
    assert called == [[sys.executable, "-P", "-m", "chorus.deploy.nodes", "--rdzv-endpoint", config, *words]]
