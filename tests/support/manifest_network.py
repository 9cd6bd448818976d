"""Whom NetworkPolicies let through: a connection passes if the sender may open it and the receiver may take it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from manifests import Object, selects


@dataclass(frozen=True)
class Party:
    """A pod (of our namespace unless `namespace` names another), or an address outside of the cluster."""

    name: str
    labels: dict[str, str] = field(default_factory=dict, hash=False)
    namespace: str = ""
    address: str = ""

    @property
    def ours(self) -> bool:
        return not self.namespace and not self.address


def passes(policies: list[Object], sender: Party, receiver: Party, port: int, protocol: str = "TCP") -> bool:
    """As networking.k8s.io/v1 defines it: policies add up; whom none selects in a direction is free in it."""
    out = _permits(policies, "Egress", sender, receiver, port, protocol)
    return out and _permits(policies, "Ingress", receiver, sender, port, protocol)


def _permits(policies: list[Object], way: str, party: Party, peer: Party, port: int, protocol: str) -> bool:
    mine = [p["spec"] for p in policies if party.ours and selects(p["spec"]["podSelector"], party.labels)]
    mine = [spec for spec in mine if way in spec["policyTypes"]]
    side = "to" if way == "Egress" else "from"
    rules = [rule for spec in mine for rule in spec.get(way.lower(), [])]
    return not mine or any(
        (side not in rule or any(_is(peer, wanted) for wanted in rule[side]))
        and ("ports" not in rule or any(_covers(p, port, protocol) for p in rule["ports"]))
        for rule in rules
    )


def _is(peer: Party, wanted: Object) -> bool:
    if "ipBlock" in wanted:
        address = ipaddress.ip_address(peer.address) if peer.address else None
        within = [
            ipaddress.ip_network(net) for net in (wanted["ipBlock"]["cidr"], *wanted["ipBlock"].get("except", []))
        ]
        return address is not None and address in within[0] and not any(address in net for net in within[1:])
    if peer.address:
        return False
    if "namespaceSelector" in wanted:
        here = {"kubernetes.io/metadata.name": peer.namespace or "chorus"}
        return selects(wanted["namespaceSelector"], here) and selects(wanted.get("podSelector", {}), peer.labels)
    return peer.ours and selects(wanted["podSelector"], peer.labels)


def _covers(wanted: Object, port: int, protocol: str) -> bool:
    first = wanted.get("port", 0)
    last = wanted.get("endPort", first or 65535)
    return wanted.get("protocol", "TCP") == protocol and first <= port <= last
