"""What a schema does not see: names that lead nowhere, two owners of one number, a pod that may be root.

Each rule yields one line a fault; the line names the object and what is wrong with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from manifests import Object, Pods, pods, selects, title, walk

# Made by hand, since a repository holds no secrets: deploy/README.md tells how.
SECRETS = {"chorus-secrets": {"redis-password", "reward-token", "hf-token"}}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_SCALE = {"m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_SCALE |= {f"{prefix}i": 1024.0**n for n, prefix in enumerate("KMGTP", 1)}
_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
# Values that the API server knows and the published schemas do not, by the name of their key.
_VALUES = {
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "policyTypes": {"Ingress", "Egress"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "medium": {"", "Memory"},
    "operator": {"In", "NotIn", "Exists", "DoesNotExist", "Equal"},
    "unhealthyPodEvictionPolicy": {"IfHealthyBudget", "AlwaysAllow"},
    "podReplacementPolicy": {"Failed", "TerminatingOrFailed"},
    "fsGroupChangePolicy": {"OnRootMismatch", "Always"},
    "action": {"FailJob", "FailIndex", "Ignore", "Count"},
}
_TARGET_TYPES = {"Utilization", "AverageValue", "Value"}
_RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
_RESTRICTED_VOLUMES |= {"secret"}


def complaints(objects: list[Object]) -> list[str]:
    """All faults of all rules."""
    return [line for rule in RULES for line in rule(objects)]


def names(objects: list[Object]) -> Iterator[str]:
    for name, count in Counter(title(o) for o in objects).items():
        if count > 1:
            yield f"{name} is there {count} times"


def selectors(objects: list[Object]) -> Iterator[str]:
    every = pods(objects)
    for o in objects:
        spec = o.get("spec", {})
        if o["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
            own = next(p for p in every if p.owner == title(o))
            if not selects(spec["selector"], own.labels):
                yield f"{title(o)}: its selector does not match the labels of its own pods, {own.labels}"
        elif o["kind"] == "Service":
            chosen = [p for p in every if selects({"matchLabels": spec["selector"]}, p.labels)]
            if not chosen:
                yield f"{title(o)}: its selector {spec['selector']} matches no pods"
            for port in spec["ports"]:
                target = port.get("targetPort", port["port"])
                missing = [p.owner for p in chosen if target not in p.ports()]
                yield from (f"{title(o)}: targetPort {target} is no port of {owner}" for owner in missing)
        elif o["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            wanted = [spec.get("selector", spec.get("podSelector"))]
            for rule in (*spec.get("ingress", []), *spec.get("egress", [])):
                peers = (*rule.get("from", []), *rule.get("to", []))
                wanted += [peer["podSelector"] for peer in peers if set(peer) == {"podSelector"}]
            for selector in wanted:
                if not any(selects(selector, p.labels) for p in every):
                    yield f"{title(o)}: its selector {selector} matches no pods"


def references(objects: list[Object]) -> Iterator[str]:
    held = {("ConfigMap", o["metadata"]["name"]): set(o.get("data", {})) for o in objects if o["kind"] == "ConfigMap"}
    held |= {("Secret", name): keys for name, keys in SECRETS.items()}
    claims = {o["metadata"]["name"] for o in objects if o["kind"] == "PersistentVolumeClaim"}
    for o in objects:
        own = {c["metadata"]["name"] for c in o.get("spec", {}).get("volumeClaimTemplates", [])}
        for p in (p for p in pods(objects) if p.owner == title(o)):
            yield from _references_of(p, held, claims, own)


def _references_of(p: Pods, held: dict[tuple[str, str], set[str]], claims: set[str], own: set[str]) -> Iterator[str]:
    volumes = {v["name"] for v in p.spec.get("volumes", [])} | own
    for path, key, value in walk(p.spec):
        kind = {"configMapRef": "ConfigMap", "configMapKeyRef": "ConfigMap", "configMap": "ConfigMap"}.get(key)
        kind = kind or {"secretRef": "Secret", "secretKeyRef": "Secret"}.get(key)
        if kind and (kind, value["name"]) not in held:
            yield f"{p.owner}{path}: there is no {kind} {value['name']}"
        elif kind and "key" in value and value["key"] not in held[kind, value["name"]]:
            yield f"{p.owner}{path}: {kind} {value['name']} has no key {value['key']}"
        if key == "claimName" and value not in claims:
            yield f"{p.owner}{path}: there is no PersistentVolumeClaim {value}"
        if key == "volumeMounts":
            yield from (f"{p.owner}{path}: there is no volume {m['name']}" for m in value if m["name"] not in volumes)
    for c in p.containers:
        known = {key for s in c.get("envFrom", []) for key in held.get(("ConfigMap", s["configMapRef"]["name"]), ())}
        for entry in c.get("env", []):
            yield from _unknown(p, c, entry.get("value", ""), known)
            known.add(entry["name"])
        for argument in (*c.get("command", []), *c.get("args", [])):
            yield from _unknown(p, c, argument, known)


def _unknown(p: Pods, container: Object, text: str, known: set[str]) -> Iterator[str]:
    """A kubelet leaves what it does not know as it stands."""
    for name in set(_REFERENCE.findall(text)) - known:
        yield f"{p.owner}: container {container['name']} has no variable {name} for {text!r}"


def probes(objects: list[Object]) -> Iterator[str]:
    served = {title(o) for o in objects if o["kind"] in ("Deployment", "StatefulSet")}
    for p in pods(objects):
        for c in p.spec["containers"]:
            ports = {port["containerPort"] for port in c.get("ports", [])} | {
                port["name"] for port in c.get("ports", []) if "name" in port
            }
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = c.get(probe, {}).get("httpGet") or c.get(probe, {}).get("tcpSocket")
                if asked and asked["port"] not in ports:
                    yield f"{p.owner}: {probe} asks port {asked['port']}, which container {c['name']} does not have"
            if p.owner in served and "readinessProbe" not in c:
                yield f"{p.owner}: container {c['name']} has no readinessProbe"
            stop = c.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
            if stop[:1] == ["sleep"] and float(stop[1]) >= p.spec.get("terminationGracePeriodSeconds", 30):
                yield f"{p.owner}: preStop sleeps through the whole terminationGracePeriodSeconds"


def quantity(text: Any) -> float | None:
    """In units (cores, bytes); None: no quantity."""
    found = _QUANTITY.fullmatch(str(text))
    return float(found[1]) * _SCALE[found[2] or ""] if found else None


def resources(objects: list[Object]) -> Iterator[str]:
    for p in pods(objects):
        for c in p.containers:
            wanted, most = (c.get("resources", {}).get(k, {}) for k in ("requests", "limits"))
            where = f"{p.owner}: container {c['name']}"
            yield from (f"{where} requests no {what}" for what in ("cpu", "memory") if what not in wanted)
            if "memory" not in most:
                yield f"{where} has no limit of memory"
            for what in wanted.keys() & most.keys():
                low, high = quantity(wanted[what]), quantity(most[what])
                if low is not None and high is not None and low > high:
                    yield f"{where} requests more {what} ({wanted[what]}) than its limit ({most[what]})"
    for o in objects:
        for path, key, value in walk(o):
            if key in ("requests", "limits") and isinstance(value, dict):
                for what, amount in value.items():
                    if quantity(amount) is None:
                        yield f"{title(o)}{path}.{what}: {amount!r} is no quantity"
            if key == "sizeLimit" and quantity(value) is None:
                yield f"{title(o)}{path}: {value!r} is no quantity"


def values(objects: list[Object]) -> Iterator[str]:
    for o in objects:
        for path, key, value in walk(o.get("spec", {})):
            for one in value if isinstance(value, list) else [value]:
                if key in _VALUES and isinstance(one, str) and one not in _VALUES[key]:
                    yield f"{title(o)}{path}: {one!r} is none of {', '.join(sorted(_VALUES[key]))}"
        for metric in o["spec"]["metrics"] if o["kind"] == "HorizontalPodAutoscaler" else ():
            aimed = next(v for k, v in metric.items() if k != "type")["target"]["type"]
            if aimed not in _TARGET_TYPES:
                yield f"{title(o)}: target.type {aimed!r} is none of {', '.join(sorted(_TARGET_TYPES))}"


def autoscalers(objects: list[Object]) -> Iterator[str]:
    owners: Counter[str] = Counter()
    for o in objects:
        if o["kind"] not in ("HorizontalPodAutoscaler", "ScaledObject"):
            continue
        spec = o["spec"]
        least = spec.get("minReplicas", spec.get("minReplicaCount", 0))
        most = spec.get("maxReplicas", spec.get("maxReplicaCount", 100))
        if least > most:
            yield f"{title(o)}: at least {least} replicas and at most {most}"
        aim = spec["scaleTargetRef"]
        name = f"{aim.get('kind', 'Deployment')}/{aim['name']}"
        target = next((t for t in objects if title(t) == name), None)
        if target is None:
            yield f"{title(o)}: there is no {name} to scale"
            continue
        owners[name] += 1
        if "replicas" in target["spec"]:
            yield f"{name} has replicas, which {title(o)} sets as well"
    yield from (f"{name} is scaled by {count} autoscalers" for name, count in owners.items() if count > 1)


def security(objects: list[Object]) -> Iterator[str]:
    """The `restricted` profile, and a root that can't be written."""
    for p in pods(objects):
        whole = p.spec.get("securityContext", {})
        if whole.get("runAsNonRoot") is not True or not whole.get("runAsUser"):
            yield f"{p.owner}: may be root"
        if whole.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{p.owner}: has no seccompProfile"
        if p.spec.get("automountServiceAccountToken") is not False:
            yield f"{p.owner}: holds a token for the API server, which it does not need"
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if p.spec.get(key):
                yield f"{p.owner}: {key}"
        for volume in p.spec.get("volumes", []):
            for kind in set(volume) - {"name"} - _RESTRICTED_VOLUMES:
                yield f"{p.owner}: volume {volume['name']} is a {kind}"
        for c in p.containers:
            own, where = c.get("securityContext", {}), f"{p.owner}: container {c['name']}"
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{where} may gain privileges"
            if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
                yield f"{where} keeps capabilities"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{where} can write its root file system"


def images(objects: list[Object]) -> Iterator[str]:
    """Ours get the tag that whoever pushes them gives; others must be the same tomorrow."""
    for p in pods(objects):
        for c in p.containers:
            name, _, tag = c["image"].partition(":")
            if not name.startswith("chorus-") and (not tag or tag == "latest"):
                yield f"{p.owner}: image {c['image']} is not pinned"


def jobs(objects: list[Object]) -> Iterator[str]:
    for o in objects:
        if o["kind"] != "Job":
            continue
        policy = o["spec"]["template"]["spec"].get("restartPolicy", "Always")
        if policy == "Always" or ("podFailurePolicy" in o["spec"] and policy != "Never"):
            yield f"{title(o)}: restartPolicy {policy} can't be, where the job decides what a failure means"
        inside = {c["name"] for c in o["spec"]["template"]["spec"]["containers"]}
        for rule in o["spec"].get("podFailurePolicy", {}).get("rules", []):
            name = rule.get("onExitCodes", {}).get("containerName")
            if name and name not in inside:
                yield f"{title(o)}: podFailurePolicy looks at container {name}, which is not there"


RULES = (names, selectors, references, probes, resources, values, autoscalers, security, images, jobs)
