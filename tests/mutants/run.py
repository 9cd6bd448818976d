"""Breaks the code on purpose, one named breakage at a time, and sees whether its tests notice (`make mutants`).

    python tests/mutants/run.py [--only PART OF A NAME] [--jobs 2]

Everything happens in copies of the tree, under a temporary folder. Before any breakage, the named tests must pass in a
copy. Then each breakage is put into a copy that is otherwise whole; there it must still pass `ruff check` and import,
and every test that it names must fail. A breakage that is not noticed survives, and the command ends with status 1.
The last line is `N breakages, N caught, N survived`; a breakage that can't be tried counts as survived.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from breakages import Breakage, Unusable, covered, read_breakages

ROOT = Path(__file__).resolve().parents[2]
RUFF = Path(sys.executable).with_name("ruff")
OUTCOMES, IMPORTS = "CHORUS_TEST_OUTCOMES", "CHORUS_TEST_IMPORTS"  # what the plugin outcomes.py is told
BASE_DEADLINE_S = 1200.0
DEADLINE_S = 240.0  # a breakage's tests; one that makes them hang needs a test with a deadline of its own


class Copy:
    """A copy of the working tree, which its tests import: what git knows and what it does not ignore."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            source, target = ROOT / name, self.root / name
            if source.is_symlink() or source.is_file():  # a file that was deleted and not committed is neither
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        beside = ROOT.parent / "shared"  # the optional data sets
        if beside.exists():
            (folder / "shared").symlink_to(beside.resolve())

    def environment(self, modules: Sequence[str]) -> dict[str, str]:
        """The copy stands before the installed package; no bytecode is kept, which could outlive a breakage."""
        paths = os.pathsep.join([str(self.root / "src"), str(self.root / "tests" / "mutants")])
        ours = {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
        return os.environ | ours | {OUTCOMES: str(self._outcomes), IMPORTS: " ".join(dict.fromkeys(modules))}

    @property
    def _outcomes(self) -> Path:
        return self.root.parent / "outcomes.json"

    def call(self, argv: Sequence[str], deadline_s: float, modules: Sequence[str] = ()) -> tuple[int, str]:
        """Exit status and output. All that the command started ends with it. Raises TimeoutError."""
        process = subprocess.Popen(
            argv, cwd=self.root, env=self.environment(modules), start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"no end within {deadline_s:g} s") from None
        finally:
            self._end_what_is_left()
            process.wait()
        return process.returncode, output

    def _end_what_is_left(self) -> None:
        """A broken guard leaves processes behind; those of this copy are known by their environment."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(OUTCOMES) == str(self._outcomes):
                    process.kill()

    def test(
        self, names: Sequence[str], modules: Sequence[str], deadline_s: float, *more: str
    ) -> tuple[dict[str, str], str]:
        """Node id -> `passed`, `failed` or `skipped`, and pytest's output.

        Raises Unusable where the `modules` do not import from this copy, or the tests can't be run; TimeoutError.
        """
        self._outcomes.unlink(missing_ok=True)
        options = ["-q", "-p", "outcomes", "-p", "no:cacheprovider", "--tb=line", *more]
        status, output = self.call([sys.executable, "-m", "pytest", *options, *names], deadline_s, modules)
        if status not in (0, 1):
            raise Unusable(f"pytest ended with status {status}:\n{_tail(output)}")
        return json.loads(self._outcomes.read_text()), output


def _tail(output: str, lines: int = 15) -> str:
    return "\n".join(f"    {line}" for line in output.strip().splitlines()[-lines:])


def check_whole(copy: Copy, chosen: list[Breakage], jobs: int) -> None:
    """Without any breakage all named tests pass. Raises Unusable."""
    names = sorted({name for b in chosen for name in b.fails})
    files = {name.partition("::")[0] for name in names}
    parallel = ["-n", str(min(jobs, len(files))), "--dist", "loadfile"] if len(files) > 1 else []
    started = time.monotonic()
    outcomes, output = copy.test(names, [b.module for b in chosen], BASE_DEADLINE_S, *parallel)
    passed = [id for id, outcome in outcomes.items() if outcome == "passed"]
    failed = [id for id, outcome in outcomes.items() if outcome == "failed"]
    missing = [name for name in names if not covered(name, passed)]
    if failed or missing:
        raise Unusable(f"the whole tree does not pass: failed {failed}, not run {missing}\n{_tail(output)}")
    print(f"whole: {len(passed)} tests pass, {time.monotonic() - started:.0f} s", flush=True)


def try_one(copy: Copy, b: Breakage) -> str:
    """`caught`, or why not. The copy is whole again afterwards."""
    path = copy.root / b.file
    whole = path.read_text()
    try:
        path.write_text(b.applied(whole))
        status, output = copy.call([str(RUFF), "check", "--no-cache", b.file], DEADLINE_S)
        if status:
            return f"ruff refuses it:\n{_tail(output)}"
        outcomes, output = copy.test(b.fails, [b.module], DEADLINE_S)
        failed = [id for id, outcome in outcomes.items() if outcome == "failed"]
        unseen = [name for name in b.fails if not covered(name, failed)]
        return f"these tests pass with it: {', '.join(unseen)}\n{_tail(output, 5)}" if unseen else "caught"
    except (Unusable, TimeoutError, UnicodeError) as error:
        return str(error)
    finally:
        path.write_text(whole)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Break the code on purpose and see whether the tests notice.")
    parser.add_argument("--only", default="", help="only breakages whose name or file contains this")
    parser.add_argument("--jobs", type=int, default=2, help="so many at a time")
    args = parser.parse_args(argv)
    chosen = [b for b in read_breakages() if args.only in b.name or args.only in b.file]
    if not chosen:
        print(f"mutants: no breakage's name or file contains {args.only!r}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="chorus-mutants-") as scratch:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for k in range(args.jobs):
            copies.put(Copy(Path(scratch) / str(k)))
        first = copies.get()
        try:
            check_whole(first, chosen, args.jobs)
        except (Unusable, TimeoutError) as error:
            print(f"mutants: {error}", file=sys.stderr)
            return 2
        copies.put(first)

        def one(b: Breakage) -> bool:
            copy, started = copies.get(), time.monotonic()
            try:
                said = try_one(copy, b)
            finally:
                copies.put(copy)
            caught = said == "caught"
            print(f"{time.monotonic() - started:5.1f} s  {b.name}: {'' if caught else 'SURVIVED: '}{said}", flush=True)
            return caught

        with ThreadPoolExecutor(args.jobs) as pool:
            results = list(pool.map(one, chosen))
    caught = sum(results)
    print(f"{len(chosen)} breakages, {caught} caught, {len(chosen) - caught} survived")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
