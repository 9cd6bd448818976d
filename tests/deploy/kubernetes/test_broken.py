"""Manifests with one thing wrong: each must be refused, and the refusal must name what is wrong and where."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from manifest_rules import complaints
from manifests import Object, find, render

NAME = "app.kubernetes.io/name"


@dataclass(frozen=True)
class Broken:
    """`value` is put where `path` leads to in `kind/name` (None: removed)."""

    what: str
    kind: str
    name: str
    path: tuple[str | int, ...]
    value: Any
    refusal: str

    def __str__(self) -> str:
        return self.what

    def objects(self) -> list[Object]:
        objects = render("cpu")
        here: Any = find(objects, self.kind, self.name)
        for step in self.path[:-1]:
            here = here[step]
        if self.value is None:
            del here[self.path[-1]]
        else:
            here[self.path[-1]] = self.value
        return objects


POD = ("spec", "template", "spec")
MAIN = (*POD, "containers", 0)
CASES = [
    Broken(
        "a selector that its own pods do not match",
        "Deployment", "generator", ("spec", "selector", "matchLabels", NAME), "generators",
        "Deployment/generator: its selector does not match the labels of its own pods",
    ),
    Broken(
        "a service that finds nobody",
        "Service", "redis", ("spec", "selector", NAME), "valkey", "Service/redis: its selector .* matches no pods",
    ),
    Broken(
        "a service's port that nobody serves",
        "Service", "reward-server", ("spec", "ports", 0, "targetPort"), "grpc",
        "Service/reward-server: targetPort grpc is no port of Deployment/reward-server",
    ),
    Broken(
        "a budget that protects nobody",
        "PodDisruptionBudget", "generator", ("spec", "selector", "matchLabels", NAME), "gen",
        "PodDisruptionBudget/generator: its selector .* matches no pods",
    ),
    Broken(
        "a network policy's peer that does not exist",
        "NetworkPolicy", "reward-server", ("spec", "ingress", 0, "from", 0, "podSelector", "matchLabels", NAME), "gen",
        "NetworkPolicy/reward-server: its selector .*gen.* matches no pods",
    ),
    Broken(
        "a ConfigMap by the wrong name",
        "Deployment", "generator", (*MAIN, "envFrom", 0, "configMapRef", "name"), "runs",
        "Deployment/generator.*: there is no ConfigMap runs",
    ),
    Broken(
        "a Secret's key that is not among those to be made",
        "StatefulSet", "redis", (*MAIN, "env", 0, "valueFrom", "secretKeyRef", "key"), "password",
        "StatefulSet/redis.*: Secret chorus-secrets has no key password",
    ),
    Broken(
        "a claim that nobody makes",
        "Job", "learner", (*POD, "volumes", 0, "persistentVolumeClaim", "claimName"), "weights",
        "Job/learner.*: there is no PersistentVolumeClaim weights",
    ),
    Broken(
        "a mount of a volume that is not there",
        "Job", "learner", (*MAIN, "volumeMounts", 0, "name"), "model", "Job/learner.*: there is no volume model",
    ),
    Broken(
        "a variable that nobody sets",
        "Job", "learner", (*MAIN, "args", 4), "$(RUN)",
        r"Job/learner: container learner has no variable RUN for '\$\(RUN\)'",
    ),
    Broken(
        "a probe of a port that is not there",
        "Deployment", "generator", (*MAIN, "readinessProbe", "httpGet", "port"), "http",
        "Deployment/generator: readinessProbe asks port http",
    ),
    Broken(
        "a server without a readiness probe",
        "Deployment", "reward-server", (*MAIN, "readinessProbe"), None,
        "Deployment/reward-server: container reward-server has no readinessProbe",
    ),
    Broken(
        "a farewell that takes the whole grace",
        "Deployment", "reward-server", (*MAIN, "lifecycle", "preStop", "exec", "command", 1), "30",
        "Deployment/reward-server: preStop sleeps through",
    ),
    Broken(
        "a quantity in a unit that is none",
        "Job", "learner", (*MAIN, "resources", "requests", "memory"), "2Gigs", "Job/learner.*: '2Gigs' is no quantity",
    ),
    Broken(
        "a volume's size in a unit that is none",
        "PersistentVolumeClaim", "runs", ("spec", "resources", "requests", "storage"), "10GB",
        "PersistentVolumeClaim/runs.*: '10GB' is no quantity",
    ),
    Broken(
        "a request above its limit",
        "Deployment", "generator", (*MAIN, "resources", "requests", "memory"), "5000Mi",
        "Deployment/generator: container generator requests more memory",
    ),
    Broken(
        "memory without a limit",
        "Deployment", "reward-server", (*MAIN, "resources", "limits"), None,
        "Deployment/reward-server: container reward-server has no limit of memory",
    ),
    Broken(
        "an access mode that is none",
        "PersistentVolumeClaim", "models", ("spec", "accessModes"), ["ReadWriteAll"],
        "PersistentVolumeClaim/models.*: 'ReadWriteAll' is none of",
    ),
    Broken(
        "an autoscaler's target type that is none",
        "HorizontalPodAutoscaler", "reward-server", ("spec", "metrics", 0, "resource", "target", "type"), "Percent",
        "HorizontalPodAutoscaler/reward-server: target.type 'Percent' is none of",
    ),
    Broken(
        "more replicas at least than at most",
        "HorizontalPodAutoscaler", "reward-server", ("spec", "minReplicas"), 9,
        "HorizontalPodAutoscaler/reward-server: at least 9 replicas and at most 2",
    ),
    Broken(
        "an autoscaler of nothing",
        "HorizontalPodAutoscaler", "reward-server", ("spec", "scaleTargetRef", "name"), "rewards",
        "HorizontalPodAutoscaler/reward-server: there is no Deployment/rewards to scale",
    ),
    Broken(
        "replicas beside an autoscaler",
        "Deployment", "reward-server", ("spec", "replicas"), 2,
        "Deployment/reward-server has replicas, which HorizontalPodAutoscaler/reward-server sets as well",
    ),
    Broken(
        "a pod that may be root",
        "Job", "learner", (*POD, "securityContext", "runAsNonRoot"), None, "Job/learner: may be root",
    ),
    Broken(
        "a root file system that can be written",
        "StatefulSet", "redis", (*MAIN, "securityContext", "readOnlyRootFilesystem"), False,
        "StatefulSet/redis: container redis can write its root file system",
    ),
    Broken(
        "a mount of the host",
        "Deployment", "generator", (*POD, "volumes", 0), {"name": "models", "hostPath": {"path": "/models"}},
        "Deployment/generator: volume models is a hostPath",
    ),
    Broken(
        "an image that may be another tomorrow",
        "StatefulSet", "redis", (*MAIN, "image"), "redis:latest", "StatefulSet/redis: image redis:latest is not pinned",
    ),
    Broken(
        "a job that can never end",
        "Job", "learner", (*POD, "restartPolicy"), "OnFailure", "Job/learner: restartPolicy OnFailure can't be",
    ),
    Broken(
        "exit codes of a container that is not there",
        "Job", "learner", ("spec", "podFailurePolicy", "rules", 1, "onExitCodes", "containerName"), "trainer",
        "Job/learner: podFailurePolicy looks at container trainer",
    ),
]  # fmt: skip


@pytest.mark.parametrize("broken", CASES, ids=str)
def test_it_is_refused_and_named(broken: Broken) -> None:
    assert complaints(render("cpu")) == []
    refusals = complaints(broken.objects())
    assert any(re.match(broken.refusal, line) for line in refusals), refusals


def test_two_autoscalers_of_one_deployment_are_refused() -> None:
    objects = render("cpu")
    second = {
        "kind": "ScaledObject",
        "metadata": {"name": "graders"},
        "spec": {"scaleTargetRef": {"name": "reward-server"}, "minReplicaCount": 1, "triggers": []},
    }
    assert "Deployment/reward-server is scaled by 2 autoscalers" in complaints([*objects, second])


def test_an_object_that_is_there_twice_is_refused() -> None:
    objects = render("cpu")
    assert "Service/redis is there 2 times" in complaints([*objects, find(objects, "Service", "redis")])
