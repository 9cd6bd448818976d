"""Which files of a folder are the data set: as the hub lays sets out, and as `datasets` saves them.

gsm8k/main/train-00000-of-00001.parquet        gsm8k?config=main
gsm8k/main/test-00000-of-00001.parquet         gsm8k?config=main&split=test
MATH/train/algebra/1.json                      MATH?config=*        all configurations together
saved/dataset_dict.json, saved/train/...       saved                (`save_to_disk`)
"""

from __future__ import annotations

import json
import re
from pathlib import Path

_SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json", "package.json")
_SHARD = re.compile(r"[-_.]?\d{3,}(?:-of-\d+)?$|^\d+$")


def saved_files(folder: Path, split: str | None) -> list[Path]:
    """The files of a set that `datasets` saved here, in order; none where it did not. Raises ValueError."""
    if (folder / "dataset_dict.json").is_file():
        splits = _read(folder / "dataset_dict.json").get("splits", [])
        if (split or "train") not in splits:
            raise ValueError(
                f"problems {str(folder)!r}: there is no split {split or 'train'!r}; name one of {', '.join(splits)} "
                "with `split=`"
            )
        folder = folder / (split or "train")
    elif split is not None and (folder / "state.json").is_file():
        raise ValueError(f"problems {str(folder)!r}: this is one split as it was saved; leave out `split`")
    if not (folder / "state.json").is_file():
        return []
    return [folder / file["filename"] for file in _read(folder / "state.json").get("_data_files", [])]


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"problems {path}: not valid JSON ({error}); mend the file") from None


def chosen_files(folder: Path, split: str | None, config: str | None, endings: tuple[str, ...]) -> list[Path]:
    """The files of one split of one configuration, or with `*` of all. Raises ValueError where that is not clear."""
    files = sorted(
        (
            path
            for path in folder.rglob("*")
            if path.name.endswith(endings) and path.name not in _ABOUT and not _is_hidden(path.relative_to(folder))
        ),
        key=_in_order,
    )
    if not files:
        raise ValueError(
            f"problems {str(folder)!r}: no file of problems in this folder; they end in {', '.join(endings)}"
        )
    of_split = [path for path in files if (split or "train").lower() in _words(path, folder)]
    if not of_split and split is None and not any(word in _words(p, folder) for p in files for word in _SPLITS):
        of_split = files
    if not of_split:
        splits = sorted({word for path in files for word in _words(path, folder) if word in _SPLITS})
        found = ", ".join(splits or (str(path.relative_to(folder)) for path in files[:5]))
        raise ValueError(
            f"problems {str(folder)!r}: no file of split {split or 'train'!r}; it has {found}: name one with `split=`"
        )
    groups: dict[str, list[Path]] = {}
    for path in of_split:
        groups.setdefault(_group(path, folder, split or "train"), []).append(path)
    if config == "*" or (config is None and len(groups) == 1):
        return _of_one_kind(of_split, folder)
    names = sorted(groups)
    if config is None or not (chosen := [name for name in names if config in (name, *name.split("/"))]):
        what = "it has several configurations" if config is None else f"there is no configuration {config!r}"
        raise ValueError(
            f"problems {str(folder)!r}: {what}; name one of {', '.join(names[:12])} with `config=`, or all with "
            "`config=*`"
        )
    return _of_one_kind([path for name in chosen for path in groups[name]], folder)


def _of_one_kind(files: list[Path], folder: Path) -> list[Path]:
    """The same rows may lie there twice, in two formats."""
    kinds = sorted({"".join(re.findall(r"\.[a-z]+", path.name.lower())) for path in files})
    if len(kinds) > 1:
        raise ValueError(
            f"problems {str(folder)!r}: its files are of several kinds ({', '.join(kinds)}); name one file, or some "
            "with a *"
        )
    return files


def _group(path: Path, folder: Path, split: str) -> str:
    """The folders and the stem, less the split and the number of the piece: what a configuration is called."""
    inside = path.relative_to(folder)
    stem = _SHARD.sub("", path.name.split(".")[0])
    parts = [part for part in (*inside.parts[:-1], stem) if part and part not in (split, "data")]
    return "/".join(parts) + path.name[len(path.name.split(".")[0]) :] * (not parts)


def _words(path: Path, folder: Path) -> list[str]:
    return re.split(r"[^A-Za-z0-9]+", str(path.relative_to(folder)).lower())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def _in_order(path: Path) -> list[tuple[int, str]]:
    """2.json before 10.json."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path)) if part]
