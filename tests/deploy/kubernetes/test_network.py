"""The overlays' NetworkPolicies, asked about every pair: what a run needs is open, and nothing else."""

from __future__ import annotations

import itertools

import pytest
from manifest_network import Party, passes
from manifests import Object, find, pods, render

NAME = "app.kubernetes.io/name"
STRANGER = Party("stranger", {"app": "debug"})
PROMETHEUS = Party("prometheus", {NAME: "prometheus"}, namespace="monitoring")
KEDA = Party("keda", {"app": "keda-operator"}, namespace="keda")
DNS = Party("dns", {"k8s-app": "kube-dns"}, namespace="kube-system")
ELSEWHERE = Party("elsewhere", {NAME: "generator"}, namespace="default")
HUB = Party("hub", address="18.165.98.1")
METADATA = Party("metadata", address="169.254.169.254")  # a cloud's, with the node's credentials
STORE, GLOO = 29400, 40123
PORTS = (53, 443, 6379, 8000, 8100, 9100, 9101, STORE, GLOO, 45000)

NEEDED = {
    ("generator", "redis", 6379),
    ("learner", "redis", 6379),
    ("generator", "reward-server", 8100),
    ("generator", "learner", STORE),
    # gloo: the end with the larger address opens the connection, so either may
    ("generator", "learner", GLOO),
    ("learner", "generator", GLOO),
    ("generator", "generator", GLOO),  # weights that are passed on
}
WATCHED = {("prometheus", to, p) for to in ("reward-server", "generator", "learner") for p in (8100, 9100, 9101)}


def ours(objects: list[Object]) -> list[Party]:
    return [Party(p.labels[NAME], p.labels) for p in pods(objects)]


def open_ways(overlay: str) -> set[tuple[str, str, int]]:
    objects = render(overlay)
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    parties = [*ours(objects), STRANGER, PROMETHEUS, KEDA, DNS, ELSEWHERE, HUB, METADATA]
    return {
        (a.name, b.name, port)
        for a, b in itertools.product(parties, repeat=2)
        for port in PORTS
        if (a.ours or b.ours) and passes(policies, a, b, port)
    }


def names_resolve(overlay: str) -> set[tuple[str, str, int]]:
    return {(party.name, "dns", 53) for party in [*ours(render(overlay)), STRANGER]}


def test_on_cpus_what_a_run_needs_is_open_and_nothing_else() -> None:
    assert open_ways("cpu") == NEEDED | WATCHED | names_resolve("cpu")


def test_on_gpus_the_model_may_be_fetched_besides() -> None:
    fetched = {("generator", "hub", 443), ("learner", "hub", 443), ("data", "hub", 443)}
    assert open_ways("gpu") == NEEDED | WATCHED | names_resolve("gpu") | fetched


def test_keda_may_read_redis_besides() -> None:
    assert open_ways("keda") == open_ways("gpu") | {("keda", "redis", 6379)}


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "gpu-4", "gpu-7b", "keda"])
def test_the_kernel_picks_ports_for_weights_from_the_range_that_is_open(overlay: str) -> None:
    objects = render(overlay)
    policy = find(objects, "NetworkPolicy", "generator")["spec"]["ingress"][0]["ports"]
    for p in pods(objects):
        if p.labels[NAME] in ("generator", "learner"):
            sysctls = {s["name"]: s["value"] for s in p.spec["securityContext"]["sysctls"]}
            first, last = map(int, sysctls["net.ipv4.ip_local_port_range"].split())
            assert policy == [{"port": first, "endPort": last}]


def test_without_any_policy_all_is_open() -> None:
    """Else an empty list of ways could mean a broken question."""
    assert passes([], STRANGER, Party("redis", {NAME: "redis"}), 6379)


def test_policies_add_up_and_both_ends_must_agree() -> None:
    policies = [o for o in render("cpu") if o["kind"] == "NetworkPolicy"]
    learner, redis = Party("learner", {NAME: "learner"}), Party("redis", {NAME: "redis"})
    assert passes(policies, learner, redis, 6379)
    for name in ("redis", "learner"):
        fewer = [p for p in policies if p["metadata"]["name"] != name]
        assert not passes(fewer, learner, redis, 6379), f"nothing but {name} opens its end"
