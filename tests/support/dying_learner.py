"""`chorus learner` whose first start kills itself at its first checkpoint: the manifest is there, the ledger not told.

CHORUS_TEST_LEARNER=dying_learner.py        for scripted_run.py
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    from chorus.cli.main import main
    from chorus.protocol.ledger import LearnerLedger

    if "--resume" not in sys.argv:
        LearnerLedger.durable = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,method-assign]
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
