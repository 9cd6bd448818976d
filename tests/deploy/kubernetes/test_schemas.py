"""The overlays against the API's own schemas, where unknown keys and missing schemas are errors. `make kube-test`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml
from manifests import KUBERNETES, Object, absent, find, render, title

OLDEST, NEWEST = "1.29", "1.37"  # deploy/README.md names the oldest


@cache
def validate_module() -> Any:
    try:
        import kubernetes_validate
    except ImportError:
        absent("kubernetes-validate is not installed: `make kube-test` installs it, and checks the schemas")
    return kubernetes_validate


@cache
def keda_schemas() -> dict[str, Object]:
    """KEDA's own, closed: as they come, they take misspelt keys."""
    try:
        from cloudcoil.models.keda import v1alpha1  # type: ignore[import-not-found]
    except ImportError:
        absent("cloudcoil-models-keda is not installed: `make kube-test` installs it, and checks KEDA's objects")
    kinds = ("ScaledObject", "TriggerAuthentication")
    return {kind: _closed(getattr(v1alpha1, kind).model_json_schema(by_alias=True)) for kind in kinds}


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(inner) for key, inner in schema.items()}
    return closed | {"additionalProperties": False} if "properties" in closed else closed


@cache
def read_once() -> None:
    """The validator reads megabytes of definitions anew for every object."""
    module = validate_module().utils
    module.schema_contents = cache(module.schema_contents)


def faults(objects: list[Object], version: str) -> Iterator[str]:
    api = validate_module()
    read_once()
    for o in objects:
        try:
            if o["apiVersion"].startswith("keda.sh/"):
                jsonschema.validate(o, keda_schemas()[o["kind"]])
            else:
                api.validate(o, version, strict=True)
        except jsonschema.ValidationError as error:
            yield f"{title(o)}: {'.'.join(map(str, error.absolute_path))}: {error.message}"
        except api.SchemaNotFoundError as error:
            yield f"{title(o)}: {error.message}"


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("overlay", ["cpu", "gpu", "gpu-4", "gpu-7b", "keda"])
def test_every_object_fits_its_schema(overlay: str, version: str) -> None:
    assert list(faults(render(overlay), version)) == []


@pytest.mark.parametrize("file", ["files.yaml", "results.yaml", "eval.yaml"])
def test_what_is_started_by_hand_fits_its_schema(file: str) -> None:
    assert list(faults(list(yaml.safe_load_all((KUBERNETES / file).read_text())), OLDEST)) == []


CONTAINER = ("spec", "template", "spec", "containers", 0)
BROKEN = [
    ("cpu", "Deployment", "generator", ("spec", "replicas"), "two", "'two' is not of type 'integer'"),
    ("cpu", "Deployment", "generator", (*CONTAINER, "containerPrt"), 1, "'containerPrt' was unexpected"),
    ("cpu", "StatefulSet", "redis", ("spec", "selector"), None, "'selector' is a required property"),
    ("cpu", "HorizontalPodAutoscaler", "reward-server", ("spec", "maxReplica"), 8, "'maxReplica' was unexpected"),
    ("cpu", "HorizontalPodAutoscaler", "reward-server", ("apiVersion",), "autoscaling/v2beta2", "Couldn't find schema"),
    ("cpu", "NetworkPolicy", "redis", ("spec", "ingres"), [], "'ingres' was unexpected"),
    ("cpu", "Job", "learner", ("kind",), "Jobb", "Couldn't find schema for kind Jobb"),
    ("keda", "ScaledObject", "generator", ("spec", "maxReplicaCount"), "8x", "'8x' is not"),
    ("keda", "ScaledObject", "generator", ("spec", "triggers"), None, "'triggers' is a required property"),
    ("keda", "ScaledObject", "generator", ("spec", "coolDownPeriod"), 900, "'coolDownPeriod' was unexpected"),
    ("keda", "ScaledObject", "generator", ("spec", "triggers", 0, "metadata", "lagCount"), 1, "1 is not of type"),
]  # fmt: skip


@pytest.mark.parametrize(("overlay", "kind", "name", "path", "value", "fault"), BROKEN, ids=lambda v: str(v)[:40])
def test_a_broken_object_is_refused_and_named(
    overlay: str, kind: str, name: str, path: tuple[str | int, ...], value: Any, fault: str
) -> None:
    here: Any = (whole := find(render(overlay), kind, name))
    for step in path[:-1]:
        here = here[step]
    if value is None:
        del here[path[-1]]
    else:
        here[path[-1]] = value
    told = list(faults([whole], OLDEST))
    assert any(f"/{name}" in line and fault in line for line in told), told
