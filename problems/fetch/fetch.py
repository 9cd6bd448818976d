"""A catalogue's sets, from the first place that has them to a folder that recipes and suites name.

TO/raw/NAME.parquet     as published; on another machine `--from TO/raw` makes the same files of it
TO/NAME.jsonl.gz        the problems
TO/fetched.json         the lock: where each came from, and every checksum; what was fetched once must stay the same
TO/README.md            the same for people, with a licence each
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chorus.problems.fetch.catalogue import Catalogue, Mirror, Set
from chorus.problems.fetch.convert import Converted, draw_rest, read_set, write_set
from chorus.problems.fetch.download import NotHad, fetch_file, sha256_of
from chorus.problems.sources import load_problems
from chorus.protocol.messages import Problem
from chorus.protocol.run_folder.files import read_json, write_json, write_whole
from chorus.protocol.runtime.exits import CannotGoOn

LOCK = "fetched.json"
LOST = 0.01  # of the usable rows: a mirror that has lost more is not the set that was meant
Say = Callable[[str], None]


def address_of(each: Set, mirror: Mirror, instead: str = "") -> str:
    """Where a set's rows are asked for: at the mirror, or in `instead` under the set's own name."""
    return f"{instead.rstrip('/')}/{each.name}{mirror.ending}" if instead else mirror.address


class Fetch:
    """One folder being filled. `instead`: a folder or a URL that is asked in place of all mirrors."""

    def __init__(self, catalogue: Catalogue, to: Path, instead: str, say: Say) -> None:
        self._catalogue, self._to, self._instead, self._say = catalogue, to, instead, say
        self._raw = to / "raw"
        try:
            self._raw.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotGoOn(f"--to {to}: {error.strerror}; give a folder that can be written") from None
        self._lock: dict[str, Any] = read_json(to / LOCK)
        self._read: dict[str, list[Problem]] = {}

    def run(self, names: list[str]) -> None:
        """Bring the sets of these names, all without any. Raises CannotGoOn."""
        catalogue = self._catalogue
        for each in catalogue.with_needs(names or [each.name for each in catalogue.set]):
            if self._is_there(each):
                self._say(f"{each.name}: is there")
                continue
            found = self._drawn(each) if each.rest else self._fetched(each)
            if each.kept:
                write_set(self._to / each.file, found.problems)
                self._lock[each.name] |= {"file": each.file, "file_sha256": sha256_of(self._to / each.file)}
            self._lock[each.name] |= {"rows": found.rows, "usable": len(found.problems)}
            write_json(self._to / LOCK, self._lock)
            self._say(f"{each.name}: {len(found.problems):,} problems{_left_out(found)}")
        write_whole(self._to / "README.md", readme(catalogue, self._lock))

    def _is_there(self, each: Set) -> bool:
        """Whether the file is the one that was made here; a set that others alone need is read when they do."""
        known = self._lock.get(each.name, {})
        path = self._to / (each.file if each.kept else f"raw/{known.get('raw', '-')}")
        if not path.is_file():
            return False
        if sha256_of(path) == known.get("file_sha256" if each.kept else "sha256"):
            return True
        if each.kept and known:
            raise CannotGoOn(f"{path}: is not the file that was fetched ({self._to / LOCK}); remove it, and ask again")
        return False

    def problems(self, name: str) -> list[Problem]:
        """Of a set that is there."""
        if name not in self._read:
            each = next(each for each in self._catalogue.set if each.name == name)
            if each.kept:
                self._read[name] = load_problems(str(self._to / each.file))
            else:
                known = self._lock[name]
                self._read[name] = self._converted(each, self._raw / known["raw"], known["columns"]).problems
        return self._read[name]

    def _drawn(self, each: Set) -> Converted:
        assert each.rest
        self._lock[each.name] = {"rest_of": each.rest.of, "without": each.rest.without}
        try:
            problems = draw_rest(each.name, each.rest, {name: self.problems(name) for name in each.needs})
        except ValueError as error:
            raise CannotGoOn(f"{error}; fetch the sets that it is drawn from again") from None
        return Converted(problems, rows=len(problems))

    def _fetched(self, each: Set) -> Converted:
        refusals = []
        for mirror in each.mirror:
            address = address_of(each, mirror, self._instead)
            try:
                return self._from(each, mirror, address)
            except NotHad as error:
                refusals.append(f"{address}: {error}")
                self._say(f"{each.name}: {refusals[-1]}")
        mend = (
            "put the file there (--list says which)"
            if self._instead
            else "try again, or bring the file by other means and name its folder with --from (--list says which)"
        )
        raise CannotGoOn(f"{each.name}: no place has it ({'; '.join(refusals)}); {mend}")

    def _from(self, each: Set, mirror: Mirror, address: str) -> Converted:
        name = f"{each.name}{mirror.ending}"
        before = self._lock.get(each.name, {})
        locked = before.get("sha256", "") if before.get("mirror") == mirror.address else ""
        sha256 = fetch_file(address, self._raw / name, mirror.sha256 or locked, self._say)
        try:
            found = self._converted(each, self._raw / name, mirror.columns)
        except (ValueError, ImportError) as error:
            raise NotHad(f"can't be read: {error}") from None
        usable, wanted = len(found.problems), each.usable or each.rows
        if each.rows and found.rows != each.rows:
            raise NotHad(f"has {found.rows:,} rows, where {each.rows:,} are published")
        if usable < (1 - LOST) * wanted:
            raise NotHad(f"has {usable:,} usable problems, where {wanted:,} were counted{_left_out(found)}")
        if wanted and usable != wanted:
            self._say(f"{each.name}: {usable:,} usable problems, where {wanted:,} were counted")
        self._lock[each.name] = {
            "from": address,
            "mirror": mirror.address,
            "sha256": sha256,
            "checksum_was_known": bool(mirror.sha256 or locked),
            "raw": name,
            "columns": mirror.columns,
        }
        return found

    def _converted(self, each: Set, raw: Path, columns: str) -> Converted:
        solutions = self.problems(each.solutions) if each.solutions else []
        return read_set(each.name, raw, columns, solutions)


def _left_out(found: Converted) -> str:
    if not found.unusable:
        return ""
    reasons = ", ".join(f"{n} {reason}" for reason, n in found.unusable.most_common())
    return f" of {found.rows:,} rows (left out: {reasons})"


def readme(catalogue: Catalogue, lock: Mapping[str, Any]) -> str:
    """What lies in the folder, where it comes from, and under which licence."""
    lines = [f"# {catalogue.title}", "", "Written by `chorus fetch`; `fetched.json` holds every checksum.", ""]
    lines += ["| file | problems | what | licence | from |", "| --- | --- | --- | --- | --- |"]
    for each in catalogue.set:
        if (known := lock.get(each.name)) is None:
            continue
        place = f"what {', '.join(known['without'])} leave of {known['rest_of']}" if each.rest else known["from"]
        of = f" of {known['rows']:,} rows" if known["rows"] != known["usable"] else ""
        file = f"`{each.file}`" if each.kept else f"`raw/{known['raw']}`"
        lines.append(f"| {file} | {known['usable']:,}{of} | {each.title} | {each.licence} | {place} |")
    return "\n".join(lines) + "\n"
