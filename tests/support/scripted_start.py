"""What `chorus.start` starts, with scripts in the services' place; tests put it where the real program's name stands.

python tests/support/scripted_start.py engines FOLDER RECIPE [--resume]      real services, scripted engines
python tests/support/scripted_start.py sleepers FOLDER RECIPE [--resume]     services that only sleep
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from chorus.deploy import api, launcher
from chorus.deploy.services import Chosen, services_of
from chorus.deploy.supervisor import Service

ENGINE = Path(__file__).with_name("receiving.py")


def engines(chosen: Chosen) -> list[Service]:
    services = services_of(chosen)
    environment = {"PYTHONPATH": str(ENGINE.parent), "CHORUS_TEST_DELAY_S": "0.1"}
    return [
        replace(s, argv=(sys.executable, str(ENGINE), *s.argv[3:]), env={**s.env, **environment})
        if s.role == "generator"
        else s
        for s in services
    ]


def sleepers(chosen: Chosen) -> list[Service]:
    argv = ("sh", "-c", f"sleep 600 & sleep 600; : {chosen.run.path}")
    return [Service(name, name, argv, {"PATH": "/usr/bin:/bin"}, grace_s=1.0) for name in ("generator", "learner")]


if __name__ == "__main__":
    (launcher.run.__kwdefaults__ or {})["services"] = {"engines": engines, "sleepers": sleepers}[sys.argv[1]]
    sys.exit(api.main(sys.argv[2:]))
