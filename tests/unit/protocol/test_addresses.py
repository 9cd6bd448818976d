"""No secret of an address is ever shown, whatever its form; IPv6 is as good as IPv4."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from chorus.cli.main import main
from chorus.protocol.config.load import ConfigError, load_config
from chorus.protocol.runtime.addresses import http_url, listen_everywhere, redis_url, shown
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.redis import await_redis, lost
from chorus.protocol.weights import host_store, join_store, open_group

MARK = "Zq7"  # in every part of every secret; no host has it
pieces = st.lists(
    st.sampled_from(["#", "/", "?", "@", ":", "%", "[", "]", " ", "=", "&", "\\", "'", '"', "é", "1", "a"])
)
secrets = st.builds(lambda a, b: MARK + "".join(a) + MARK + "".join(b) + MARK, pieces, pieces)
hosts = st.sampled_from(["127.0.0.1", "redis.example.org", "[::1]", "[fe80::1%eth0]", "cache_1"])
schemes = st.sampled_from(["redis", "rediss", "http", "https", "unix", "valkey", "REDIS"])


@st.composite
def addresses(draw: st.DrawFn) -> str:
    """With a secret in one of the places where people put one, quoted or not, in whole addresses and in broken ones."""
    secret, host, scheme = draw(secrets), draw(hosts), draw(schemes)
    secret = quote(secret, safe="") if draw(st.booleans()) else secret
    port = draw(st.sampled_from(["", ":6379", ":99999", ":x", ":"]))
    end = draw(st.sampled_from(["", "/0", "/", "/run/redis.sock"]))
    form = draw(
        st.sampled_from(
            [
                "{scheme}://:{secret}@{host}{port}{end}",
                "{scheme}://{secret}@{host}{port}{end}",
                "{scheme}://user:{secret}@{host}{port}{end}",
                "{scheme}://{secret}:{secret}@{host}{port}{end}",
                "{scheme}://{host}{port}{end}?password={secret}",
                "{scheme}://{host}{port}{end}?db=0&username={secret}&password={secret}",
                "{scheme}://{host}{port}{end}#{secret}",
                "{scheme}://user:{secret}@{host}{port}{end}?password={secret}#{secret}",
                "{scheme}:/:{secret}@{host}{port}{end}",
                "{scheme}:{secret}@{host}{port}{end}",
                ":{secret}@{host}{port}{end}",
                "//:{secret}@{host}{port}{end}",
                "{scheme}:///run/redis.sock?password={secret}",
                "{scheme}://{secret}@/run/redis.sock",
                "{scheme}://:12#{secret}@{host}{port}{end}",
                "{scheme}://:{secret}",
            ]
        )
    )
    if form.endswith("://:{secret}"):  # what follows an @ there is a host, as nobody can tell from the address
        secret = secret.replace("@", "%40")
    return form.format(scheme=scheme, secret=secret, host=host, port=port, end=end)


@given(address=addresses())
@example("redis://:12#Zq7@host:6379/0")
@example("redis://:12/Zq7@host:6379/0")
@example("redis://host?Zq7@host")
def test_no_part_of_a_secret_is_shown(address: str) -> None:
    assert MARK not in shown(address)


@given(address=addresses())
def test_no_refusal_of_an_address_repeats_its_secret(address: str) -> None:
    try:
        redis.ConnectionPool.from_url(address)
    except ValueError:
        with pytest.raises(CannotGoOn) as refused:
            await_redis(address, 0.0)
        assert MARK not in str(refused.value)
        assert "write it as redis://HOST:PORT/0" in str(refused.value)


@given(address=addresses())
def test_no_recipe_repeats_the_secret_of_an_address_that_it_refuses(address: str) -> None:
    for take in (redis_url, http_url):
        told = ""
        try:
            take(address)
        except ValueError as refused:
            told = str(refused)
        assert MARK not in told


ports = st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}"))
users = st.one_of(st.just(""), secrets.map(lambda secret: f"me:{quote(secret, safe='')}@"))
ends = st.one_of(st.just(""), st.just("/"), st.integers(0, 15).map(lambda number: f"/{number}"))


@given(scheme=st.sampled_from(["redis", "rediss"]), user=users, host=hosts, port=ports, end=ends)
def test_every_address_of_redis_is_taken(scheme: str, user: str, host: str, port: str, end: str) -> None:
    address = f"{scheme}://{user}{host}{port}{end}"
    redis.ConnectionPool.from_url(address)
    assert redis_url(address) == address


@given(scheme=st.sampled_from(["http", "https"]), host=hosts, port=ports, end=st.sampled_from(["", "/", "/rewards"]))
def test_every_address_of_a_server_is_taken(scheme: str, host: str, port: str, end: str) -> None:
    assert http_url(f"{scheme}://{host}{port}{end}")


@pytest.mark.parametrize(
    ("key", "address", "mend"),
    [
        ("redis", "localhost:6379", "write it as redis://localhost:6379/0"),
        ("redis", "cache", "write it as redis://cache:6379/0"),
        ("redis", "http://h:1", "no address of Redis"),
        ("redis", "redis://", "no address of Redis"),
        ("redis", "redis:h:1", "no address of Redis"),
        ("redis", "redis://h:99999/0", "host and port can't be read"),
        ("redis", "redis://h:x/0", "host and port can't be read"),
        ("redis", "redis://:6379/0", "host and port can't be read"),
        ("redis", "redis://h:6379/runs", "no number of a database"),
        ("reward", "localhost:8000", "write it as http://localhost:8000"),
        ("reward", "ftp://h:1", "no address of an HTTP server"),
        ("reward", "http://", "no address of an HTTP server"),
        ("reward", "http://h: 80", "no address of an HTTP server"),
        ("reward", "http://:80", "host and port can't be read"),
        ("reward", "http://h:8000/v1/score", "without /v1/score"),
        ("reward", "http://h:8000?x=1", "no address of an HTTP server"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_where_it_was_given(
    key: str, address: str, mend: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "song.toml"
    recipe.write_text('[model]\npath = "m"\n[problems]\ntrain = ["t"]\n[templates]\nnames = ["abel"]\n')
    with pytest.raises(ConfigError, match=re.escape(mend)) as refused:
        load_config(recipe, [f"{key}.url={address}"], {})
    assert f"{key}.url" in str(refused.value)


def test_a_host_that_may_be_half_a_password_is_not_named_when_the_server_is_lost() -> None:
    told = redis.ConnectionError("Error 111 connecting to Zq7:6379. Connection refused.")
    assert MARK not in str(lost("redis://Zq7?x@host:6379", told))
    assert "connecting to Zq7:6379" in str(lost("redis://Zq7:6379", told))


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://me:pw@redis.example.org:6380/2?ssl_cert_reqs=none", "rediss://redis.example.org:6380/2"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("unix:///run/valkey.sock?db=1", "unix:///run/valkey.sock"),
        ("unix://me:pw@/run/valkey.sock", "unix:///run/valkey.sock"),
        ("http://me:pw@127.0.0.1:8100/base/", "http://127.0.0.1:8100/base/"),
        ("localhost", "localhost"),
        ("localhost:6379", "localhost:6379"),
        ("redis://host:6379/pw", "redis://host:6379"),
        ("redis://:p/w@host:6379/0", "redis://(not shown, since it may hold a password)"),
        ("user:pw@host", "(not shown, since it may hold a password)"),
    ],
)
def test_what_is_no_secret_is_shown(address: str, seen: str) -> None:
    assert shown(address) == seen


@pytest.mark.parametrize(
    "address",
    [
        "redis://:Zq7/x@127.0.0.1:9",
        "redis://:12#Zq7@127.0.0.1:9",
        "redis://127.0.0.1:9/0?password=Zq7",
        "redis://Zq7:Zq7@[::1]:9",
    ],
)
def test_no_command_prints_a_password(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "audit", "why"):
        assert main([command, "--redis", address]) == 3
    told = "".join(capfd.readouterr())
    assert MARK not in told


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ('redis = "redis://:Zq7@host"', []),
        ('[redis]\nurl = ["redis://:Zq7@host"]', []),
        ("", ["redis=redis://:Zq7@host"]),
        ("", ["redis.url redis://:Zq7@host"]),
        ("", ["redis.url=redis://:Zq7@host", "redis.url.deep=redis://:Zq7@host"]),
    ],
)
def test_no_refusal_of_a_recipe_repeats_an_address(tmp_path: Path, text: str, overrides: list[str]) -> None:
    recipe = tmp_path / "song.toml"
    recipe.write_text(text + '\n[model]\npath = "m"\n[problems]\ntrain = ["t"]\n[templates]\nnames = ["abel"]\n')
    with pytest.raises(ConfigError) as refused:
        load_config(recipe, overrides, {})
    assert MARK not in str(refused.value)
    assert "an address, not shown" in str(refused.value)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_metrics_are_served_over_both_kinds_of_ip(address: str) -> None:
    with listen_everywhere(0) as listener:
        socket.create_connection((address, listener.getsockname()[1]), timeout=5).close()


@pytest.mark.parametrize("host", ["::1", "[::1]", "127.0.0.1", "localhost"])
def test_weights_go_over_ipv6_as_over_ipv4(host: str) -> None:
    store = host_store(host, 0, 10.0)
    groups: dict[int, object] = {}

    def join(rank: int) -> None:
        groups[rank] = open_group("gloo", join_store(host, store.port, 10.0), "g", rank, 2, 10.0)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert set(groups) == {0, 1}
    assert store.host == ("::1" if ":" in host else "127.0.0.1")


@pytest.mark.parametrize(
    ("host", "port", "line"),
    [
        (
            "no.such.host.invalid",
            0,
            r"learner.host no.such.host.invalid: no such host \(.*\); give a name or an address",
        ),
        ("::1", 70000, r"learner.store_port 70000: can't listen there \(.*0-65535.*\); choose another port"),
    ],
)
def test_a_store_that_can_not_be_is_refused(host: str, port: int, line: str) -> None:
    with pytest.raises(CannotGoOn, match=line):
        host_store(host, port, 5.0)
