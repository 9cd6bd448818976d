"""Addresses as they may be shown, and sockets that both kinds of IP reach."""

from __future__ import annotations

import contextlib
import re
import socket
from urllib.parse import urlsplit

_AS_REDIS = (
    "write it as redis://HOST:PORT/0, rediss:// with TLS, unix:///run/redis.sock for a socket, special characters of a "
    "password as %XX"
)
_AS_HTTP = "write it as http://HOST:PORT"
_WHOLE = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^/?#@\s]*@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+(%\w+)?\]|[\w.-]*)(?P<port>:\d{1,5})?(?P<path>/[^?#@\s]*)?(?P<rest>[?#].*)?",
    re.DOTALL,
)
_BARE = re.compile(r"[\w.-]+(:\d{1,5})?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def shown(address: str) -> str:
    """An address of Redis or of an HTTP server for people: without user, password, query and fragment.

    Only what is surely no secret is shown: a password that was not written as %XX makes one address look like another.
    """
    if _BARE.fullmatch(address):
        return address
    whole = _WHOLE.fullmatch(address)
    if whole and is_plain(address):
        path = whole["path"] or ""
        if whole["scheme"].startswith("redis") and not re.fullmatch(r"/\d*", path):
            path = ""
        return f"{whole['scheme']}://{whole['host']}{whole['port'] or ''}{path}"
    scheme = _SCHEME.match(address)
    return f"{scheme[0] if scheme else ''}(not shown, since it may hold a password)"


def is_plain(address: str) -> bool:
    """Whether its host stands where it seems to. A second @, or none before a host, may belong to a password."""
    whole = _WHOLE.fullmatch(address)
    return bool(whole and "@" not in (whole["rest"] or "") and (whole["host"] or whole["scheme"] == "unix"))


def redis_url(address: str) -> str:
    """Itself. Raises ValueError for what is no address of a Redis server, with the mend and without any secret."""
    scheme, _, rest = address.partition("://")
    if _BARE.fullmatch(address):
        port = "" if ":" in address else ":6379"
        raise ValueError(f"{address!r} has no scheme; write it as redis://{address}{port}/0")
    if not rest or scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"{shown(address)} is no address of Redis; {_AS_REDIS}")
    if scheme == "unix":
        return address
    _look_at_host(address, _AS_REDIS)
    if not re.fullmatch(r"/?\d*", urlsplit(address).path):
        raise ValueError(f"{shown(address)}: what follows the port is no number of a database; {_AS_REDIS}")
    return address


def http_url(address: str) -> str:
    """Itself. Raises ValueError for what is no base address of an HTTP server, with the mend and without any secret."""
    scheme, _, rest = address.partition("://")
    if _BARE.fullmatch(address):
        raise ValueError(f"{address!r} has no scheme; write it as http://{address}")
    if not rest or scheme.lower() not in ("http", "https") or re.search(r"[?#\s]", rest):
        raise ValueError(f"{shown(address)} is no address of an HTTP server; {_AS_HTTP}")
    _look_at_host(address, _AS_HTTP)
    if version := re.search(r"/v1(/.*)?$", rest):
        raise ValueError(f"{shown(address)}: give the server alone, without {version[0]}, which is added to each call")
    return address


def _look_at_host(address: str, mend: str) -> None:
    try:
        parts = urlsplit(address)
        known = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # its words quote what it takes for a port, which may be a part of a password
        known = False
    if not known:
        raise ValueError(f"{shown(address)}: its host and port can't be read; {mend}")


def all_interfaces() -> str:
    """The address that stands for all interfaces: `::` takes IPv4, too, where the machine has both."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError), socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True):
            return "::"
    return "0.0.0.0"


def listen_everywhere(port: int) -> socket.socket:
    """A socket on all interfaces. Raises OSError."""
    if all_interfaces() == "::":
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("0.0.0.0", port))
