"""What an extra brings is enough for what it is for: images install one each, a checkout has them all."""

import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
# A finder that knows the packages of these distributions and the standard library, and no others.
PROGRAM = """
import sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions
from packaging.utils import canonicalize_name
brought = set({brought!r})
hidden = {{top for top, dists in packages_distributions().items()
          if not brought & {{canonicalize_name(dist) for dist in dists}}}} - {{"chorus"}}

class Brought(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Brought
sys.path.insert(0, {support!r})
"""
LEARNER = """
from pathlib import Path
import torch
from tinymodel import save_tiny_model
import chorus.learner.lifecycle, chorus.learner.main
from chorus.learner.training.export import Export, check_export
from chorus.learner.training.policy import load_policy
from chorus.protocol.config.load import load_config
assert "vllm" in hidden
model = save_tiny_model(Path({folder!r}) / "model", 16)
policy = load_policy(load_config(Path({recipe!r}), [f"model.path={{model}}"], {{}}), torch.device("cpu"))
Export(policy, Path({folder!r}) / "export").write(lambda whole: whole, first=True)
check_export(policy, Path({folder!r}) / "export")
"""


def brought_by(*names: str) -> set[str]:
    """Distributions that these requirements install here, themselves among them."""
    found: set[str] = set()
    left = [Requirement(name) for name in names]
    while left:
        wanted = left.pop()
        key = f"{canonicalize_name(wanted.name)}[{','.join(sorted(wanted.extras))}]"
        if key in found:
            continue
        found |= {key, canonicalize_name(wanted.name)}
        try:
            below = [Requirement(text) for text in requires(wanted.name) or []]
        except ModuleNotFoundError:
            continue
        extras = [{"extra": extra} for extra in ("", *wanted.extras)]
        left += [r for r in below if r.marker is None or any(r.marker.evaluate(extra) for extra in extras)]
    return found


def test_the_learners_extra_is_enough_to_write_and_check_an_export(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    brought = sorted(brought_by(*project["dependencies"], *project["optional-dependencies"]["learner"]))
    program = PROGRAM.format(brought=brought, support=str(ROOT / "tests" / "support"))
    program += LEARNER.format(folder=str(tmp_path), recipe=str(ROOT / "recipes" / "demo.toml"))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-2000:]
