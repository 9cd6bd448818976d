"""What the rendered overlay is made into, so that podman 4.3's `kube play` takes it; each change is kept in words.

A workload becomes a pod of its template, or stays a Deployment where it has no init container. Which fields podman does
not act on was seen, not read; they are taken out, and the test does in their place what a kubelet would: it asks the
probes from outside of the pod's processes, and grants the grace period.
"""

from __future__ import annotations

import copy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
TEMPLATED = ("Deployment", "StatefulSet", "Job")
CONFIG_MAP, CLAIM = "ConfigMap", "PersistentVolumeClaim"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
# On the machine's side of the network: addresses that the test gives.
NETWORK = "10.99.77"
# The first address is the machine's own.
_PODS = ("redis-0", "reward-server", "learner-0", "generator-0", "generator-1", "results")
ADDRESSES = {name: f"{NETWORK}.{n}" for n, name in enumerate(_PODS, start=2)}
IGNORED_OF_A_POD = ("automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds", "affinity")
IGNORED_OF_A_POD += ("tolerations", "activeDeadlineSeconds")
_ASK = "from urllib.request import urlopen; urlopen('http://{host}:{port}{path}', timeout={timeout})"
_CONNECT = "import socket; socket.create_connection(('{host}', {port}), {timeout})"


@dataclass
class Played:
    """A pod: what is handed to podman, and what is not.

    probes: by container and kind, a command that tells it; grace_s: how long it may take to end.
    """

    documents: list[Object]
    pod: str
    address: str
    grace_s: int
    probes: dict[str, dict[str, list[str]]]

    def container(self, name: str) -> str:
        return f"{self.pod}-{name}"


@dataclass
class Transform:
    """`secrets`: what `kubectl create secret` would have made, by key; `settings`: added to the run's ConfigMap."""

    objects: list[Object]
    secrets: dict[str, str]
    settings: dict[str, str]
    changes: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for o in self.objects:
            if o["kind"] == CONFIG_MAP and o["metadata"]["name"].startswith("run-"):
                o["data"] |= self.settings
                self._changed(f"a small run: {' '.join(f'{k}={v}' for k, v in self.settings.items())}", "ConfigMap run")

    def claims(self) -> list[Object]:
        """Those of the overlay, and those that a StatefulSet would make."""
        found = [o for o in self.objects if o["kind"] == CLAIM]
        for o in self.objects:
            for claim in o["spec"].get("volumeClaimTemplates", []) if o["kind"] == "StatefulSet" else []:
                claim = copy.deepcopy(claim) | {"apiVersion": "v1", "kind": CLAIM}
                claim["metadata"]["name"] += f"-{o['metadata']['name']}-0"
                self._changed("a StatefulSet's claim is made by the test", claim["metadata"]["name"])
                found.append(claim)
        return found

    def left_out(self) -> list[str]:
        known = (*TEMPLATED, CONFIG_MAP, CLAIM)
        return sorted({o["kind"] for o in self.objects if o["kind"] not in known})

    def pod(self, name: str, **settings: str) -> Played:
        """generator-1 is the second of the workload generator. `settings`: added to its ConfigMap alone."""
        owner = next(
            o for o in self.objects if o["kind"] in TEMPLATED and name in (o["metadata"]["name"], *_numbered(o))
        )
        template = copy.deepcopy(owner["spec"]["template"])
        for claim in owner["spec"].get("volumeClaimTemplates", []):
            volume = {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": f"data-{name}"}}
            template["spec"].setdefault("volumes", []).append(volume)
        return self._played(name, owner["kind"], template, settings)

    def given(self, o: Object) -> Played:
        """One that is a Pod already."""
        o = copy.deepcopy(o)
        return self._played(o["metadata"]["name"], "Pod", {"metadata": o["metadata"], "spec": o["spec"]}, {})

    # -- one pod ------------------------------------------------------------------------------------

    def _played(self, name: str, kind: str, template: Object, settings: dict[str, str]) -> Played:
        spec, address = template["spec"], ADDRESSES[name]
        maps = copy.deepcopy([o for o in self.objects if o["kind"] == CONFIG_MAP])
        for o in maps:
            o["data"] |= settings if o["metadata"]["name"].startswith("run-") else {}
        grace_s = spec["terminationGracePeriodSeconds"]
        has_inits = bool(spec.get("initContainers"))
        pod = name if has_inits or kind != "Deployment" else f"{name}-pod-0"
        probes = {c["name"]: self._probes(name, c, address) for c in spec["containers"]}
        self._volumes(name, spec)
        for c in [*spec.get("initContainers", []), *spec["containers"]]:
            self._container(name, c, maps, address)
        for key in [key for key in IGNORED_OF_A_POD if spec.pop(key, None) is not None]:
            self._changed(f"without {key}, on which podman does not act", name)
        self._security(name, spec.get("securityContext", {}))
        spec["hostAliases"] = [
            {"ip": ADDRESSES[target], "hostnames": [service]}
            for service, target in (("redis", "redis-0"), ("reward-server", "reward-server"))
        ]
        self._changed("hostAliases in place of Services and their names", name)
        if kind == "Deployment" and not has_inits:
            o = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": {"replicas": 1}}
            o["spec"] |= {"selector": {"matchLabels": template["metadata"]["labels"]}, "template": template}
        else:
            if kind == "Deployment":
                self._changed("a Pod that isn't restarted for a Deployment: podman restarts init containers", name)
            elif kind != "Pod":
                self._changed(f"a Pod for a {kind}, which podman does not know", name)
            spec["restartPolicy"] = "Never"
            annotations = {"io.podman.annotations.init.container.type": "always"}  # else podman removes it, and its log
            o = {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"] | {"name": name}, "spec": spec}
            o["metadata"]["annotations"] = annotations | o["metadata"].get("annotations", {})
        return Played([*maps, o], pod, address, grace_s, probes)

    def _volumes(self, name: str, spec: Object) -> None:
        for volume in spec.get("volumes", []):
            if "emptyDir" in volume:
                del volume["emptyDir"]
                volume["persistentVolumeClaim"] = {"claimName": f"{name}-{volume['name']}"}
                self._changed("an emptyDir is a volume of the pod's own: podman's would be shared by name", name)

    def _probes(self, name: str, container: Object, address: str) -> dict[str, list[str]]:
        """Each as a command for inside the container, that asks at the pod's address as a kubelet does."""
        ports = {p.get("name"): p["containerPort"] for p in container.pop("ports", [])}
        if ports:
            self._changed("without ports: podman would publish them on this machine", name)
        commands = {}
        for kind in PROBES:
            if (probe := container.pop(kind, None)) is None:
                continue
            how = {"host": address, "timeout": probe.get("timeoutSeconds", 1)}
            if "exec" in probe:
                commands[kind] = probe["exec"]["command"]
                continue
            asked = probe.get("httpGet") or probe["tcpSocket"]
            how["port"] = ports.get(asked["port"], asked["port"])
            script = _ASK.format(path=asked["path"], **how) if "httpGet" in probe else _CONNECT.format(**how)
            commands[kind] = ["python3", "-c", script]
            self._changed("httpGet and tcpSocket are an exec of python: podman calls curl, which is not there", name)
            if kind == "livenessProbe":
                # One word: podman hands the words to a shell as they are.
                container[kind] = {k: v for k, v in probe.items() if k not in ("httpGet", "tcpSocket")}
                container[kind]["exec"] = {"command": [shlex.join(commands[kind])]}
        if {"startupProbe", "readinessProbe"} & set(commands):
            self._changed("startup and readiness probes are run by the test: podman knows liveness alone", name)
        return commands

    def _container(self, name: str, container: Object, maps: list[Object], address: str) -> None:
        """Its variables and arguments with every $(NAME) replaced."""
        values: dict[str, str] = {}
        for source in container.get("envFrom", []):
            values |= next(o["data"] for o in maps if o["metadata"]["name"] == source["configMapRef"]["name"])
        for entry in container.get("env", []):
            source = entry.get("valueFrom", {})
            if source.get("fieldRef", {}).get("fieldPath") == "status.podIP":
                del entry["valueFrom"]
                entry["value"] = address
                self._changed("status.podIP is the address that the test gives: podman knows no such field", name)
            if key := source.get("secretKeyRef", {}).get("key"):
                values[entry["name"]] = self.secrets.get(key, "")
            if "value" in entry:
                entry["value"] = values[entry["name"]] = self._expanded(name, entry["value"], values)
        for key in ("command", "args"):
            if key in container:
                container[key] = [self._expanded(name, word, values) for word in container[key]]
        if container.pop("lifecycle", None):
            self._changed("without lifecycle.preStop, on which podman does not act", name)

    def _expanded(self, name: str, text: str, values: dict[str, str]) -> str:
        expanded = text
        for variable, value in values.items():
            expanded = expanded.replace(f"$({variable})", value)
        if expanded != text:
            self._changed("$(NAME) is replaced by the test: podman hands it on as it stands", name)
        return expanded

    def _security(self, name: str, context: Object) -> None:
        context.pop("fsGroupChangePolicy", None)
        if context.pop("fsGroup", None):
            self._changed("without fsGroup: podman gives a new volume to the user of the container", name)
        if context.pop("sysctls", None):
            self._changed("sysctls are in containers.conf: podman does not read a pod's", name)

    def _changed(self, how: str, where: str) -> None:
        places = self.changes.setdefault(how, [])
        if where not in places:
            places.append(where)


def _numbered(owner: Object) -> Iterator[str]:
    for n in range(owner["spec"].get("replicas", 1)):
        yield f"{owner['metadata']['name']}-{n}"
