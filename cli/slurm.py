"""Run a recipe as jobs of Slurm: a head, a learner, and arrays of generators that grow and shrink."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from chorus.cli.inspect.standing import standing
from chorus.protocol.config.load import load_config
from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.runtime.command_line import PATH, Group, option, overrides_option
from chorus.protocol.runtime.exits import CannotGoOn

_COUNT = click.IntRange(min=1)


@click.group(
    "slurm",
    cls=Group,
    invoke_without_command=True,
    help=__doc__,
    examples=[
        "chorus slurm submit recipes/demo.toml --generators 2 --print",
        "chorus slurm submit my.toml --learner-nodes 1 --generators 4 --gpus-per-generator 1 --time 4:00:00",
        "chorus slurm scale runs/my-20261129-231924 8",
    ],
)
@click.pass_context
def main(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@main.command("submit", help="Write the batch scripts into the run's folder, and submit them.")
@click.argument("recipe", type=PATH, required=False)
@option("--resume", type=PATH, metavar="RUN", help="go on with the run in this folder")
@option("--print", "only_print", is_flag=True, help="show the scripts; write and submit nothing")
@option("--learner-nodes", type=_COUNT, default=1, metavar="N", help="nodes that train together")
@option("--learner-gpus", type=click.IntRange(min=0), metavar="N", help="a node of the learner's (default: 1 or none)")
@option("--generators", type=_COUNT, default=1, metavar="N", help="elements of the first array")
@option("--gpus-per-generator", type=click.IntRange(min=0), default=0, metavar="N", help="0: on CPUs")
@option("--cpus", type=_COUNT, metavar="N", help="cores of a generator, and of a learner's node (default: 8 or 1)")
@option("--time", default="", metavar="LIMIT", help="time limit of each job; at its end the job is queued again")
@option("--partition", default="", metavar="NAME", help="where the jobs run")
@option("--account", default="", metavar="NAME", help="who pays")
@option("--qos", default="", metavar="NAME", help="their quality of service")
@option("--preemptible", is_flag=True, help="generators step back for other jobs (--nice)")
@option("--generator-partition", default="", metavar="NAME", help="another one for generators")
@option("--generator-qos", default="", metavar="NAME", help="another one for generators")
@option("--container", default="", metavar="IMAGE", help="run in it: with Pyxis, or a .sif with Apptainer")
@option("--chorus", default="", metavar="COMMAND", help="how the nodes call chorus (default: this installation)")
@option("--sbatch", multiple=True, metavar="OPTION", help="one more option of sbatch for every job, as --mem=40G")
@overrides_option
def submit(recipe: Path | None, resume: Path | None, only_print: bool, overrides: tuple[str, ...], **asked: Any) -> int:
    from chorus.deploy.launcher import new_folder
    from chorus.deploy.preflight import check_inputs
    from chorus.deploy.slurm.run import submit as submit_jobs
    from chorus.deploy.slurm.scripts import scripts
    from chorus.deploy.wishes import as_wished

    if (recipe is None) == (resume is None):
        raise CannotGoOn("give a recipe, or --resume with the folder of a run")
    source = recipe or RunFolder(resume or Path()).existing().config
    config = load_config(source, overrides)
    wishes = _wishes(asked)
    if resume:
        config = as_wished(config, RunFolder(resume))
    if only_print:
        folder = (resume or Path(config.run.dir) / (config.run.name or source.stem)).absolute()
        for name, text in scripts(config, folder, folder.name, wishes).items():
            print(f"===== {name}\n{text}")
        return os.EX_OK
    check_inputs(config, resumed=resume is not None)
    run = RunFolder(resume or new_folder(config, str(source)))
    for role, number in submit_jobs(config, source, run, wishes, resume is not None):
        print(f"{role} {number}")
    print(f"chorus slurm: {run.path} is in the queue; `chorus slurm status {run.path}` shows how far it is")
    return os.EX_OK


def _wishes(asked: dict[str, Any]) -> Any:
    from chorus.deploy.slurm.scripts import Wishes

    gpus = asked.pop("gpus_per_generator")
    learner_gpus = asked.pop("learner_gpus")
    cpus = asked.pop("cpus") or (8 if gpus else 1)
    return Wishes(
        generator_gpus=gpus, learner_gpus=min(gpus, 1) if learner_gpus is None else learner_gpus, cpus=cpus, **asked
    )


@main.command("scale", help="More generators in one more array, or fewer: those drain, and are not queued again.")
@click.argument("run", type=PATH)
@click.argument("generators", type=click.IntRange(min=0))
def scale(run: Path, generators: int) -> int:
    from chorus.deploy.slurm.run import scale as scale_jobs

    more, fewer = scale_jobs(RunFolder(run), generators)
    for what, elements in (("submitted", more), ("drains", fewer)):
        print("".join(f"{what} {element}\n" for element in elements), end="")
    return os.EX_OK


@main.command("status", help="The jobs of a run by role, with their nodes, and how far the run is.")
@click.argument("run", type=PATH)
def status(run: Path) -> int:
    from chorus.deploy.slurm.run import ROLES, Files, jobs

    files = Files(RunFolder(run))
    files.numbers()
    print("\n".join(standing(RunFolder(run)).lines))
    if files.stop.exists():
        print(f"  over: {files.stop.read_text().strip()}")
    for role in ROLES:
        for job in jobs(files, role):
            drains = "drains" if files.not_wanted(job.id).exists() else ""
            why = drains or (job.reason if job.reason != "None" else "")
            print(f"  {role:10} {job.id:10} {job.state:12} {job.nodes:12} {job.elapsed:>10}  {why}".rstrip())
    return os.EX_OK


@main.command("cancel", help="End a run in order: a checkpoint, drained generators, the head last.")
@click.argument("run", type=PATH)
def cancel(run: Path) -> int:
    from chorus.deploy.slurm.run import cancel as cancel_jobs

    cancel_jobs(RunFolder(run))
    print(f"chorus slurm: {run} ends; go on with `chorus slurm submit --resume {run}`")
    return os.EX_OK


@main.command("ranks", hidden=True, help="What a node of the learner's runs: torchrun, and its words behind `--`.")
@click.argument("config", type=PATH)
@click.argument("words", nargs=-1)
def ranks(config: Path, words: tuple[str, ...]) -> None:
    load_config(config)
    torchrun = [sys.executable, "-P", "-m", "chorus.deploy.nodes", "--rdzv-endpoint", str(config), *words]
    os.execv(sys.executable, torchrun)


@main.command("head", hidden=True, help="What the head's job runs: Redis and the reward server.")
@click.argument("run", type=PATH)
@option("--host", required=True, help="address of this node")
@option("--start", required=True, help="which start of the job this is, as `claim-head` says")
def head(run: Path, host: str, start: str) -> int:
    from chorus.deploy.slurm.head import serve

    return serve(RunFolder(run).existing(), host, start)
