"""What Compose itself does not mind, and we do. Each check takes what `docker compose config` resolved."""

from __future__ import annotations

from typing import Any

OURS = ("init", "reward-server", "generator", "learner", "view")
ENDS_BY_ITSELF = ("init", "learner")
# generator.group_deadline_s; twice a grade's limit, and 5 s; learner.grace_s
LONGEST_DRAIN_S = {"generator": 300, "reward-server": 15, "learner": 120}


def problems_of(config: dict[str, Any]) -> list[str]:
    """One line a problem; [] is what one wants."""
    found = []
    for name, service in config["services"].items():
        found += [f"{name}: {problem}" for problem in _service_problems(name, service)]
    return found


def _service_problems(name: str, service: dict[str, Any]) -> list[str]:
    found = []
    for port in service.get("ports", []):
        if port.get("host_ip") != "127.0.0.1":
            found.append(f"port {port['target']} is published beyond 127.0.0.1")
    if "ALL" not in service.get("cap_drop", []):
        found.append("keeps capabilities")
    if "no-new-privileges:true" not in service.get("security_opt", []):
        found.append("may gain privileges")
    if service.get("privileged"):
        found.append("is privileged")
    if name in OURS and not service.get("read_only"):
        found.append("can write to the root of its file system")
    if "build" not in service and not _pinned(service["image"]):
        found.append(f"image {service['image']} is not pinned to a version")
    if name in ENDS_BY_ITSELF and service.get("restart") in ("always", "unless-stopped"):
        found.append("is started again after it has ended well")
    if service.get("restart") == "on-failure":
        found.append("is started again for ever")
    if name in LONGEST_DRAIN_S and _seconds(service.get("stop_grace_period", "10s")) <= LONGEST_DRAIN_S[name]:
        found.append("is killed before it has drained")
    return found


def _pinned(image: str) -> bool:
    tag = image.rpartition(":")[2] if ":" in image.rpartition("/")[2] else ""
    return any(c.isdigit() for c in tag) and "." in tag


def _seconds(duration: str) -> float:
    """Of Compose's own form, such as 5m30s."""
    total, number = 0.0, ""
    for c in duration:
        if c.isdigit() or c == ".":
            number += c
        else:
            total += float(number) * {"h": 3600, "m": 60, "s": 1}[c]
            number = ""
    return total
