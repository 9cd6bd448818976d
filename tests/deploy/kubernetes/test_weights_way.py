"""Weights from a learner's pod to a generator's, through what network.yaml opens and nothing else.

Two network namespaces stand for the pods: each has an address, the sysctl of the manifest, and a firewall made from the
NetworkPolicy's ports. Gloo lets the end with the larger address open the connection; so the learner's is first below
and then above the generator's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from manifests import Object, find, pods, render

ROOT = Path(__file__).parents[3]
LEARNER, GENERATOR = ("10.99.78.1", "10.99.78.9"), "10.99.78.5"
# argv: the role, the learner's addresses, the port of the store
PEER = """
import sys
import torch
from chorus.protocol.weights import broadcast
from chorus.protocol.weights import host_store
from chorus.protocol.weights import join_store
from chorus.protocol.weights import open_group

role, addresses, port = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])
kept = []
for address in addresses:
    if role == "learner":
        kept.append(host_store(address, port, 40.0))
    store = join_store(address, port, 40.0)
    group = open_group("gloo", store, "weights", int(role == "generator"), 2, 40.0)
    weights = torch.ones(1000) if role == "learner" else torch.zeros(1000)
    broadcast(group, weights, 40.0)
    kept += [store, group]
    print(address, int(weights.sum()), flush=True)
"""


class PodOnWire:
    """A network namespace with a pod's addresses and firewall."""

    def __init__(self, name: str, wire: str, addresses: tuple[str, ...]) -> None:
        self.name = name
        self.namespace = f"{name[:3]}{os.getpid()}"
        _run("ip", "netns", "add", self.namespace)
        self.wire, self.addresses = wire, addresses

    def plug_in(self) -> None:
        for address in self.addresses:
            _run("ip", "-n", self.namespace, "addr", "add", f"{address}/24", "dev", self.wire)
        for device in (self.wire, "lo"):
            _run("ip", "-n", self.namespace, "link", "set", device, "up")

    def narrow(self, port_range: str, open_ports: list[Object]) -> None:
        self.inside("sh", "-c", f"echo '{port_range}' > /proc/sys/net/ipv4/ip_local_port_range")
        rules = [("-i", "lo"), ("-m", "conntrack", "--ctstate", "ESTABLISHED")]
        rules += [("-p", "tcp", "--dport", f"{p['port']}:{p.get('endPort', p['port'])}") for p in open_ports]
        for rule in rules:
            self.inside("iptables", "-w", "-A", "INPUT", *rule, "-j", "ACCEPT")
        self.inside("iptables", "-w", "-P", "INPUT", "DROP")

    def inside(self, *argv: str) -> None:
        _run("ip", "netns", "exec", self.namespace, *argv)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        command = ["ip", "netns", "exec", self.namespace, *argv]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)


@pytest.fixture
def on_wire() -> Iterator[tuple[PodOnWire, PodOnWire]]:
    for tool in ("ip", "iptables"):
        if shutil.which(tool) is None:
            pytest.skip(f"no `{tool}` here: pods on a wire can't be made")
    made: list[PodOnWire] = []
    try:
        for name, addresses in (("learner", LEARNER), ("generator", (GENERATOR,))):
            made.append(PodOnWire(name, f"{name[:3]}w{os.getpid()}"[:15], addresses))
        a, b = made
        _run("ip", "link", "add", a.wire, "netns", a.namespace, "type", "veth", "peer", b.wire, "netns", b.namespace)
        a.plug_in()
        b.plug_in()
        a.inside("iptables", "-w", "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
    except subprocess.CalledProcessError as error:
        _remove(made)
        pytest.skip(f"pods on a wire need more rights: {error.stderr.strip()}")
    yield a, b
    _remove(made)


def _remove(made: list[PodOnWire]) -> None:
    for pod in made:
        subprocess.run(["ip", "netns", "del", pod.namespace], capture_output=True)


def test_weights_pass_whichever_end_has_the_larger_address(on_wire: tuple[PodOnWire, PodOnWire]) -> None:
    objects = render("cpu")
    port = int(find(objects, "ConfigMap", "run")["data"]["CHORUS_LEARNER__STORE_PORT"])
    for pod in on_wire:
        template = next(p for p in pods(objects) if p.owner.endswith(f"/{pod.name}"))
        (sysctl,) = template.spec["securityContext"]["sysctls"]
        policy = find(objects, "NetworkPolicy", pod.name)["spec"]
        pod.narrow(sysctl["value"], policy["ingress"][0]["ports"])
    where = (",".join(LEARNER), str(port))
    running = [pod.start(sys.executable, "-c", PEER, pod.name, *where) for pod in on_wire]
    try:
        told = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [out.split("\n")[:2] for out, _ in told] == [[f"{address} 1000" for address in LEARNER]] * 2, told
