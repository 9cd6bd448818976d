"""What `chorus eval MODEL` names: a folder, a hub name, a model that is built here, or a checkpoint of a run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.exits import CannotGoOn, first_line
from chorus.starter.resolve import BUILT, build

CACHE = Path("runs/.cache")
DEFAULT_CONTEXT = 4096


@dataclass(frozen=True)
class Model:
    """`path`: what vLLM loads. `run` and `step` where it is a checkpoint of a run, whose `config` is then known."""

    path: str
    name: str
    run: Path | None = None
    step: int | None = None
    config: RunConfig | None = None

    @property
    def weights(self) -> str:
        """A digest of the folder's files by name, size and time, or of a checkpoint's manifest; the hub's names stand
        for themselves."""
        folder = Path(self.path)
        if self.run is not None and self.step:  # whatever dtype its export is kept in
            return hashlib.blake2b((folder.parent / "manifest.json").read_bytes(), digest_size=12).hexdigest()
        if not folder.is_dir():
            return self.path
        facts = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.iterdir()) if f.is_file()]
        return hashlib.blake2b(repr(facts).encode(), digest_size=12).hexdigest()

    def context(self, asked: int | None) -> int:
        """Tokens of prompt and answer: what was asked for, or the run's, or 4096 where the model has as many."""
        if asked is not None:
            return asked
        if self.config is not None:
            return self.config.model.context
        from transformers import AutoConfig

        try:
            shape = AutoConfig.from_pretrained(self.path).get_text_config()
        except (OSError, ValueError) as error:
            raise CannotGoOn(
                f"MODEL {self.path}: its config.json can't be used ({first_line(error)}); give --context"
            ) from None
        return min(DEFAULT_CONTEXT, getattr(shape, "max_position_embeddings", None) or DEFAULT_CONTEXT)


def find_model(named: str, checkpoint: str, template: str) -> Model:
    """Raises CannotGoOn. `checkpoint` (last, selected, start, or a step) counts for a run's folder only."""
    folder = Path(named)
    if (folder / "run.json").is_file():
        return _of_run(folder, checkpoint)
    if checkpoint != "last":
        raise CannotGoOn(
            f"--checkpoint {checkpoint}: {named} is no run's folder, so it has no checkpoints; leave it out"
        )
    if named in BUILT:
        return Model(str(build(named, CACHE, [template])), named)
    if not (folder / "config.json").is_file() and (folder.exists() or named.startswith((".", "/"))):
        raise CannotGoOn(f"MODEL {named}: no model there; give a Hugging Face folder, a hub name or a run's folder")
    return Model(named, folder.name)


def find_models(named: str, checkpoint: str, template: str) -> list[Model]:
    """As `find_model`; of `all`, every checkpoint of the run that has weights, in order."""
    folder = Path(named)
    if checkpoint != "all" or not (folder / "run.json").is_file():
        return [find_model(named, checkpoint, template)]
    config = load_config(folder / "config.json")
    return [Model(str(path), folder.name, folder, step, config) for step, path in _exports(folder).items()]


def _exports(folder: Path) -> dict[int, Path]:
    """Step to the weights of its checkpoint. Raises CannotGoOn where there are none."""
    exports = {
        int(path.parent.name.removeprefix("step-")): path
        for path in sorted(folder.glob("checkpoints/step-*/huggingface"))
        if (path.parent / "manifest.json").is_file()
    }
    if not exports:
        raise CannotGoOn(f"{folder} has no checkpoint with weights; evaluate its start with --checkpoint start")
    return exports


def _of_run(folder: Path, checkpoint: str) -> Model:
    config = load_config(folder / "config.json")
    if checkpoint == "start":
        return Model(config.model.path, folder.name, folder, 0, config)
    exports = _exports(folder)
    step = _step(folder, checkpoint, max(exports))
    if step not in exports:
        raise CannotGoOn(
            f"--checkpoint {checkpoint}: {folder} has no weights of step {step}; there are those of "
            f"{', '.join(map(str, exports))} (learner.keep_checkpoints and keep_exports say which are kept): give one "
            "of these"
        )
    return Model(str(exports[step]), folder.name, folder, step, config)


def _step(folder: Path, checkpoint: str, last: int) -> int:
    if checkpoint == "last":
        return last
    if checkpoint == "selected":
        try:
            return int(json.loads((folder / "selected.json").read_text(encoding="utf-8"))["step"])
        except (OSError, ValueError, KeyError):
            raise CannotGoOn(
                f"--checkpoint selected: {folder} has selected none, as a run with evaluation.every does; give "
                "last or a step"
            ) from None
    if not checkpoint.isdecimal():
        raise CannotGoOn(f"--checkpoint {checkpoint}: give last, selected, start, a step, or of `chorus eval` all")
    return int(checkpoint)
