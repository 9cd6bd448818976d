"""Kubernetes objects as the overlays give them, and the questions that the rules ask of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

Object = dict[str, Any]
KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
OVERLAYS = KUBERNETES / "overlays"
TEMPLATED = ("Deployment", "StatefulSet", "Job", "DaemonSet")


def absent(what: str) -> NoReturn:
    """A tool is not here: skipped with this word, but not where all of them are promised."""
    if os.environ.get("CHORUS_KUBE_TEST"):
        pytest.fail(what)
    pytest.skip(what)


@cache
def kustomized(folder: Path) -> str:
    """What `kubectl apply -k` would send."""
    if shutil.which("kubectl") is None:
        absent("there is no kubectl here, so no manifest can be built")
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(overlay: str) -> list[Object]:
    """An overlay's objects, parsed anew: the caller may change them."""
    return list(yaml.safe_load_all(kustomized(OVERLAYS / overlay)))


def find(objects: list[Object], kind: str, name: str) -> Object:
    """`name` without the hash that kustomize may have put behind it."""
    found = [o for o in objects if o["kind"] == kind and (title(o).split("/")[1] + "-").startswith(name + "-")]
    exact = [o for o in found if o["metadata"]["name"] == name]
    assert len(exact or found) == 1, f"{kind}/{name}: {[title(o) for o in found]}"
    return (exact or found)[0]


def title(o: Object) -> str:
    return f"{o['kind']}/{o['metadata']['name']}"


@dataclass(frozen=True)
class Pods:
    """What an object makes pods from."""

    owner: str
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def ports(self) -> dict[str | int, int]:
        """By number and by name."""
        every = [port for c in self.containers for port in c.get("ports", [])]
        return {p["containerPort"]: p["containerPort"] for p in every} | {
            p["name"]: p["containerPort"] for p in every if "name" in p
        }


def pods(objects: list[Object]) -> list[Pods]:
    found = []
    for o in objects:
        if o["kind"] in TEMPLATED:
            template = o["spec"]["template"]
            found.append(Pods(title(o), template["metadata"].get("labels", {}), template["spec"]))
        elif o["kind"] == "Pod":
            found.append(Pods(title(o), o["metadata"].get("labels", {}), o["spec"]))
    return found


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """A LabelSelector; an empty one selects all."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for wish in selector.get("matchExpressions", []):
        here, values = labels.get(wish["key"]), wish.get("values", [])
        held = {
            "In": here in values,
            "NotIn": here not in values,
            "Exists": here is not None,
            "DoesNotExist": here is None,
        }[wish["operator"]]
        if not held:
            return False
    return True


def walk(value: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every (path, key, value) of a tree of mappings and lists."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}.{key}", key, inner
            yield from walk(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from walk(inner, f"{path}[{n}]")


def environment(objects: list[Object], pod: Pods, container: str) -> dict[str, str | None]:
    """A container's variables, $(...) expanded as a kubelet does it; None where only a cluster knows the value."""
    spec = next(c for c in pod.containers if c["name"] == container)
    values: dict[str, str | None] = {}
    for source in spec.get("envFrom", []):
        values |= find(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in spec.get("env", []):
        values[entry["name"]] = expand(entry["value"], values) if "value" in entry else None
    return values


def expand(text: str, values: dict[str, str | None]) -> str:
    for name, value in values.items():
        text = text.replace(f"$({name})", value if value is not None else f"<{name}>")
    return text
