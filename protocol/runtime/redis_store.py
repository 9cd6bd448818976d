"""A rendezvous on Redis, behind its password: where processes of a group learn each other's addresses.

torch's own TCPStore asks nobody who he is and tells all its keys. This one is a hash of Redis: it opens no port, and is
forgotten `KEPT_S` after its last change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar

import redis
from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

KEPT_S = 7 * 24 * 3600  # a group of ranks makes further groups in it for as long as it trains
_POLL_S = 0.02
_SWAP = """
local found = redis.call('HGET', KEYS[1], ARGV[1])
if (not found and ARGV[2] == '') or found == ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  return ARGV[3]
end
return found or ARGV[2]
"""
_DROP = """
for _, key in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(key, 1, #ARGV[1]) == ARGV[1] then redis.call('HDEL', KEYS[1], key) end
end
"""


class RedisStore(Store):
    """As torch's own stores; `name` is the hash. Safe in threads. Raises what redis-py raises when Redis stays away,
    RuntimeError for a key that does not come in time. A process has few of them, and keeps each until it ends."""

    # Process groups call them from C++, which does not keep what Python has of them.
    _kept: ClassVar[list[RedisStore]] = []

    def __init__(self, client: redis.Redis, name: str, deadline_s: float) -> None:
        super().__init__()
        self.name = name
        self._client: Any = client
        self._deadline_s = deadline_s
        self._kept.append(self)

    # torch calls these by their names, from C++ as well
    def set(self, key: str, value: Any) -> None:
        self.multi_set([key], [value])

    def get(self, key: str) -> bytes:
        self.wait([key])
        return self._client.hget(self.name, key)

    def compare_set(self, key: str, expected_value: Any, desired_value: Any) -> bytes:
        return self._client.eval(_SWAP, 1, self.name, key, expected_value, desired_value, KEPT_S)

    def add(self, key: str, value: int) -> int:
        with self._client.pipeline() as pipe:
            return pipe.hincrby(self.name, key, value).expire(self.name, KEPT_S).execute()[0]

    def append(self, key: str, value: Any) -> None:
        script = "redis.call('HSET', KEYS[1], ARGV[1], (redis.call('HGET', KEYS[1], ARGV[1]) or '') .. ARGV[2])"
        self._client.eval(script, 1, self.name, key, value)

    def check(self, keys: Sequence[str]) -> bool:
        return not keys or None not in self._client.hmget(self.name, list(keys))

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:  # type: ignore[override]
        limit_s = self._deadline_s if timeout is None else timeout.total_seconds()
        end = time.monotonic() + limit_s
        while not self.check(keys):
            if time.monotonic() > end:
                raise RuntimeError(f"rendezvous {self.name}: nobody wrote {', '.join(keys)} within {limit_s:g} s")
            time.sleep(_POLL_S)

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        self.wait(keys)
        return self._client.hmget(self.name, list(keys)) if keys else []

    def multi_set(self, keys: Sequence[str], values: Sequence[Any]) -> None:
        if keys:
            with self._client.pipeline() as pipe:
                pipe.hset(self.name, mapping=dict(zip(keys, values, strict=True))).expire(self.name, KEPT_S).execute()

    def delete_key(self, key: str) -> bool:
        return bool(self._client.hdel(self.name, key))

    def delete_under(self, prefix: str) -> None:
        """All keys that begin so, as those of a PrefixStore do."""
        self._client.eval(_DROP, 1, self.name, f"{prefix}/")

    def num_keys(self) -> int:
        return self._client.hlen(self.name)

    def has_extended_api(self) -> bool:
        return True

    def forget(self) -> None:
        self._client.delete(self.name)
