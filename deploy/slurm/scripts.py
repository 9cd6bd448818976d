"""The batch scripts of a run, as a person would write them.

Every command of ours runs as a step (`srun`): Slurm starts it on the job's nodes, in the container where one is named,
and can signal it alone. The scripts hold no secret: what they need of them they read on the node.
"""

from __future__ import annotations

import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template

from chorus.protocol.config.run import RunConfig

MARGIN_S = 60  # beyond what the work may take to end in order: for srun, and for a slow file system
DRAIN_S = 120  # a generator's; what it has not finished by then, another one samples again


@dataclass(frozen=True)
class Wishes:
    """What `chorus slurm submit` was asked for."""

    learner_nodes: int = 1
    learner_gpus: int = 0
    generators: int = 1
    generator_gpus: int = 0
    cpus: int = 1
    time: str = ""
    partition: str = ""
    account: str = ""
    qos: str = ""
    preemptible: bool = False
    generator_partition: str = ""
    generator_qos: str = ""
    container: str = ""
    chorus: str = ""
    sbatch: tuple[str, ...] = ()


def scripts(config: RunConfig, run: Path, run_id: str, wishes: Wishes) -> dict[str, str]:
    """The files of `<run>/slurm` by name. `run`: the run's folder, absolute."""
    work = {
        "run": shlex.quote(str(run)),
        "workdir": shlex.quote(str(Path.cwd())),
        "name": shlex.quote(run_id),
        "launch": _launch(config, run, wishes),
        "command": _command(wishes),
    }
    learner = ["learner", "--config", f"{run}/config.json", "--run-id", run_id, "--run-dir", str(run), "--resume"]
    generator = ["generator", "--config", f"{run}/config.json", "--run-id", run_id]
    ask_s = math.ceil(config.learner.grace_s) + MARGIN_S
    gpus = _gpus(wishes.learner_gpus)
    return {
        "job.sh": _filled(_JOB, **work),
        "head.sbatch": _filled(_HEAD, **work, options=_options(run_id, run, wishes, "head", ask_s=MARGIN_S)),
        "learner.sbatch": _filled(
            _LEARNER,
            **work,
            options=_options(run_id, run, wishes, "learner", ask_s, f"--nodes={wishes.learner_nodes}", *gpus),
            training=_training(wishes, config, learner, f"{run}/config.json", run_id),
        ),
        "generator.sbatch": _filled(
            _GENERATOR,
            **work,
            options=_options(run_id, run, wishes, "generator", DRAIN_S + MARGIN_S, *_gpus(wishes.generator_gpus)),
            generator=shlex.join(generator),
        ),
    }


def _options(run_id: str, run: Path, wishes: Wishes, role: str, ask_s: int, *more: str) -> str:
    """The #SBATCH lines. `--signal`: how long before its time limit a job's script is told."""
    is_generator = role == "generator"
    log = f"{run}/logs/{'generator-%A_%a' if is_generator else role}.log"
    asked = {
        "--partition": (is_generator and wishes.generator_partition) or wishes.partition,
        "--account": wishes.account,
        "--qos": (is_generator and wishes.generator_qos) or wishes.qos,
        "--time": wishes.time,
    }
    options = [
        f"--job-name={shlex.quote(f'chorus-{role}-{run_id}')}",
        *(f"{option}={shlex.quote(value)}" for option, value in asked.items() if value),
        *("--ntasks-per-node=1", f"--cpus-per-task={1 if role == 'head' else wishes.cpus}", *more),
        *(["--nice=1000"] if is_generator and wishes.preemptible else []),
        *("--requeue", "--open-mode=append", f"--signal=B:TERM@{ask_s}"),
        f"--output={shlex.quote(log)}",
        *wishes.sbatch,
    ]
    return "\n".join(f"#SBATCH {option}" for option in options)


def _gpus(n: int) -> list[str]:
    return [f"--gpus-per-node={n}"] if n else []


def _training(wishes: Wishes, config: RunConfig, learner: list[str], config_file: str, run_id: str) -> str:
    """One process by itself; several under torchrun, whose nodes meet on the run's Redis."""
    if wishes.learner_nodes * max(1, wishes.learner_gpus) == 1:
        return f'work "${{chorus[@]}}" {shlex.join(learner)}'
    torchrun = [
        f"exec $CHORUS slurm ranks {shlex.quote(config_file)} --",
        f"--nnodes {wishes.learner_nodes} --nproc-per-node {max(1, wishes.learner_gpus)}",
        '--rdzv-id "$RUN" --rdzv-conf "rank=$SLURM_NODEID"',
        # Or it would kill its ranks after 30 s.
        f"--shutdown-timeout {math.ceil(config.learner.grace_s) + 10}",
        f"-m chorus.cli.main {shlex.join(learner)}",
    ]
    # SLURM_NODEID differs from node to node, so that a shell on each of them has to read it. The start is part of the
    # name: a node that lives on unseen after Slurm has lost it waits for nobody of the next start.
    words = " \\\n  ".join(torchrun)
    return f'export RUN={shlex.quote(run_id)}.$start\nexport CHORUS="${{chorus[*]}}"\nwork bash -c {shlex.quote(words)}'


def _command(wishes: Wishes) -> str:
    if wishes.chorus:
        return f"chorus=({wishes.chorus})"
    if wishes.container:
        return "chorus=(chorus)"
    return f"chorus=({shlex.quote(sys.executable)} -P -m chorus.cli.main)"


def _launch(config: RunConfig, run: Path, wishes: Wishes) -> str:
    """What stands before a command in srun's arguments: how it gets into the container."""
    if not wishes.container:
        return ""
    folders = [Path.cwd(), run.parent, Path(config.model.path)]
    mounts = list(dict.fromkeys(str(f.absolute()) for f in folders if f.is_dir() or f == run.parent))
    image = shlex.quote(wishes.container)
    if wishes.container.endswith(".sif"):
        binds = " ".join(f"--bind {shlex.quote(mount)}" for mount in mounts)
        return f'apptainer exec --nv {binds} --pwd "$PWD" {image}'
    pairs = ",".join(f"{mount}:{mount}" for mount in mounts)
    return f'--container-image={image} --container-mounts={shlex.quote(pairs)} --container-workdir="$PWD"'


class _Script(Template):
    """@name, since $ is the shell's."""

    delimiter = "@"


def _filled(text: str, **values: str) -> str:
    return _Script(text).substitute(values)


_JOB = r"""# What the batch scripts of this run share. Written by `chorus slurm submit`.
umask 077
cd @workdir || exit 3
run=@run
@command
me=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
start=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
# config.json holds what was configured when the run was submitted: no variable overrides it here.
for name in "${!CHORUS_@@}"; do [[ $name == *__* ]] && unset "$name"; done
CHORUS_REWARD_TOKEN=$(< "$run/slurm/reward-token")
export CHORUS_REWARD_TOKEN
# Where the other nodes reach this one: Slurm knows.
address=$(scontrol show node "$SLURMD_NODENAME" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')

# Slurm tells this shell before the time limit, and `chorus slurm` when a job shall end: then the step ends in order.
# ($SLURM_JOB_ID would not do: an array's last element bears the number of the whole array.)
asked=
trap 'asked=1; scancel --quiet --signal=TERM "$me"' TERM

# Whether nobody wants this job any more: the run is over, or this generator was cancelled.
over() { [ -e "$run/slurm/stop" ] || [ -e "$run/slurm/stop-$me" ]; }

# Whether Slurm knows of this start of the job. Where it has lost the node, srun may end with 0, and another srun would
# begin a step in the job's next start.
current() {
  local told
  told=$(scontrol show job "$me") || return 1
  [[ $told == *JobState=RUNNING* && $told == *"Restarts=${SLURM_RESTART_COUNT:-0} "* ]]
}

# Whether a port of a host answers.
answers() { timeout 3 bash -c 'exec 3<> "/dev/tcp/$0/$1"' "$1" "$2" 2> /dev/null; }

# Waits until the head answers: it may be queued again itself.
await_head() {
  local end=$((SECONDS + 3600))
  until [ -e "$run/slurm/head" ] && answers $(< "$run/slurm/head"); do
    over && exit 0
    [ -n "$asked" ] && put_back
    [ "$SECONDS" -gt "$end" ] && fail "no head for an hour; see $run/logs/head.log, then submit with --resume" 3
    sleep 1
  done
}

# step COMMAND...: one task on each node of the job; returns its exit status. A signal only interrupts the wait.
step() {
  local job status
  srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 @launch "$@@" &
  job=$!
  while wait "$job"; status=$?; kill -0 "$job" 2> /dev/null; do :; done
  return "$status"
}

# work COMMAND...: a step that goes on while it may: after a crash, five times, and after the head was away.
work() {
  local crashes=0 status head began
  while :; do
    await_head
    current || exit 0
    head=$(< "$run/slurm/head")
    began=$SECONDS
    step "$@@"
    status=$?
    [ $((SECONDS - began)) -gt 600 ] && crashes=0
    case $status in 0 | 2 | 64 | 143) return "$status" ;; esac
    [ -n "$asked" ] && return 143
    if [ "$status" = 3 ]; then
      [ "$head" = "$(< "$run/slurm/head")" ] && answers $head && return 3
    elif [ $((crashes += 1)) -gt 5 ]; then
      return "$status"
    fi
    echo "chorus slurm: the step ended with $status; it is started again"
    sleep 2
  done
}

# Into the queue again, under the same number: Slurm ends this start of the job.
put_back() {
  over && exit 0
  current || exit 0
  scontrol requeue "$me" && sleep 300
  exit 1
}

# fail WORDS STATUS
fail() { echo "chorus slurm: $1"; exit "$2"; }

# end_run WORDS: nobody is queued again. Generators drain; the head ends after them.
end_run() {
  [ -e "$run/slurm/stop" ] || echo "$1" > "$run/slurm/stop"
  local job
  for job in $(sed -n 's/^generator //p' "$run/slurm/jobs"); do
    scancel --quiet --state=PENDING "$job"
    scancel --quiet --batch --signal=TERM "$job"
  done
}

# claim ROLE: of two starts of a job, whose older one lives on where Slurm can't see it, the younger counts.
claim() { echo "$start" > "$run/slurm/claim-$1"; }
claimed() { current && [ "$(< "$run/slurm/claim-$1")" = "$start" ]; }
"""

_HEAD = r"""#!/bin/bash
@options
# Redis and the reward server of run @name.
source @run/slurm/job.sh

claim head
step "${chorus[@@]}" slurm head @run --host "$address" --start "$start"
status=$?
claimed head || exit 0
case $status in
  0) exit 0 ;;
  2 | 3 | 64)
    end_run "the head ended with $status"
    scancel --quiet --batch --signal=TERM $(sed -n 's/^learner //p' "$run/slurm/jobs")
    exit "$status"
    ;;
  *) put_back ;;
esac
"""

_LEARNER = r"""#!/bin/bash
@options
# The learner of run @name: goes on from its newest checkpoint.
source @run/slurm/job.sh

export CHORUS_LEARNER__HOST=$address
claim learner
# A learner without any generator would hold its nodes for nothing, and give up after a while.
arrays() { sed -n 's/^generator //p' "$run/slurm/jobs" | paste -sd, -; }
sampling() { [ -n "$(squeue --noheader --states=RUNNING --jobs="$(arrays)" 2> /dev/null)" ]; }
until sampling; do
  [ -n "$asked" ] && put_back
  over && exit 0
  sleep 2
done
@training
status=$?
claimed learner || exit 0
case $status in
  0) end_run finished ;;
  143) put_back ;;
  3) sampling || put_back ;; # all generators were taken away, so that nothing came to train on
esac
[ "$status" = 0 ] || end_run "the learner ended with $status, see $run/logs/learner.log"
exit "$status"
"""

_GENERATOR = r"""#!/bin/bash
@options
# A generator of run @name.
source @run/slurm/job.sh

work "${chorus[@@]}" @generator --name "gen-$me" --log "$run/logs/gen-$me-vllm.log"
status=$?
# A generator ends with 0 only when it was asked to, and has drained.
case $status in 0 | 143) put_back ;; esac
exit "$status"
"""
