"""What this machine has of what a run needs, in a minute; then five steps of the demo on it.

The demo's policy is taken as it is drawn, so that nothing is learnt: the five steps say that sampling, grading,
training and the weights' way work here. Its folder stays if they fail.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import click

from chorus.cli.recipes import recipe_named
from chorus.deploy.check import Finding, findings
from chorus.protocol.runtime.command_line import PATH, command, option
from chorus.protocol.runtime.exits import CANNOT_GO_ON

STEPS = 5
_DEADLINE_S = 900.0
_SMALL = (
    *(f"run.steps={STEPS}", f"learner.checkpoint_every={STEPS}", "learner.groups_per_step=8", "doctor.steps=0"),
    *("evaluation.problems=0", "evaluation.every=0"),
    'generator.vllm_args=["--enforce-eager"]',  # compiling would take minutes
)


@command("check", help=__doc__, examples=["chorus check", "chorus check --no-run --json"])
@option("--no-run", is_flag=True, help="look only, and train nothing")
@option("--dir", "folder", type=PATH, default="runs", metavar="FOLDER", help="where runs are to be written")
@option("--json", "as_json", is_flag=True, help="print one JSON object")
def main(no_run: bool, folder: Path, as_json: bool) -> int:
    found: list[Finding] = []
    for finding in findings(folder):
        found.append(finding)
        if not as_json:
            _print(finding)
    if not no_run and not any(finding.state == "missing" for finding in found):
        found.append(_demo())
        if not as_json:
            _print(found[-1])
    fine = not any(finding.state == "missing" for finding in found)
    if as_json:
        print(json.dumps({"ok": fine, "findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        print("chorus check: " + ("all there" if fine else "something is missing, see above"))
    return os.EX_OK if fine else CANNOT_GO_ON


def _print(finding: Finding) -> None:
    mark = {"ok": "ok", "warning": "??", "missing": "--"}[finding.state]
    click.echo(f"{mark}  {finding.what:14} {finding.said}" + (f": {finding.mend}" if finding.mend else ""))


def _demo() -> Finding:
    """Five steps on whatever there is."""
    scratch = Path(tempfile.mkdtemp(prefix="chorus-check-"))
    recipe, began = str(recipe_named("demo")), time.monotonic()
    build = ["-c", _BUILD, str(scratch / "policy"), recipe]
    run = ["-m", "chorus.cli.main", "run", recipe]
    log = scratch / "output.txt"
    for arguments in (build, run):
        if arguments is run:
            policy = log.read_text(encoding="utf-8").splitlines()[-1]
            for setting in (*_SMALL, f"model.path={policy}", f"run.dir={scratch}"):
                run += ["--set", setting]
        try:
            with log.open("w", encoding="utf-8") as output:
                called = [sys.executable, "-P", *arguments]
                status = subprocess.run(
                    called, stdout=output, stderr=subprocess.STDOUT, timeout=_DEADLINE_S, check=False
                ).returncode
        except subprocess.TimeoutExpired:
            status = -1
        if status:
            why = f"status {status}" if status > 0 else f"no end within {_DEADLINE_S:g} s"
            return Finding("demo", "missing", f"{why}, {_last_line(log)}", f"read {log} and the logs beside it")
    shutil.rmtree(scratch, ignore_errors=True)
    return Finding("demo", "ok", f"{STEPS} steps in {time.monotonic() - began:,.0f} s")


# As it is drawn, but for two updates: what warms it up takes minutes, and is the demo's own.
_BUILD = """
import sys
from pathlib import Path
from chorus.protocol.config.load import load_config
from chorus.starter.build import build_starter
names = load_config(sys.argv[2], (), {}).templates.names
print(build_starter(Path(sys.argv[1]), names, steps=2))
"""


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "without a word"
