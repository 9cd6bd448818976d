"""Which domain each admission of a stage draws from.

Stratified, every batch of P admissions holds, of a domain with share w, w x P groups rounded down or up (within one
item, whatever the number of domains), and the rounding evens out over batches:

    shares 2/3, 1/3 laid side by side on a line of length P = 12     |--------------8|------4|
    points at u, u + 1, ..., u + P - 1, each falling into a domain     x x x x x x x x x x x x    -> 8 and 4

u moves by the golden ratio from batch to batch; within a batch the order is shuffled. Without stratification the
points are P independent ones. All of it is a function of the seed: nothing has to be saved.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from random import Random

_CIRCLE = 2**64
_GOLDEN = 0x9E3779B97F4A7C15  # of that circle; u's places spread evenly


class Blend:
    """`weights`: domain to its weight, in proportion; those of weight 0 are never drawn."""

    def __init__(self, seed: str, weights: Mapping[str, float], batch: int, stratified: bool = True) -> None:
        exact = {name: Fraction(weights[name]) for name in sorted(weights) if weights[name]}
        total = sum(exact.values())
        self._names = list(exact)
        self._bounds = list(accumulate(weight * batch / total for weight in exact.values()))  # in exact arithmetic
        self._seed = seed
        self._batch = batch
        self._stratified = stratified
        self._before: list[Counter[str]] = [Counter()]  # draws by domain, before each batch
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def at(self, n: int) -> tuple[str, int]:
        """(domain, how many draws it had before) of the n-th admission, from 0."""
        domain = self._order(n // self._batch)[n % self._batch]
        return domain, self.drawn(n)[domain]

    def drawn(self, n: int) -> Counter[str]:
        """Draws by domain among the first n."""
        batch, place = divmod(n, self._batch)
        while len(self._before) <= batch:
            self._before.append(self._before[-1] + Counter(self._order(len(self._before) - 1)))
        return self._before[batch] + Counter(self._order(batch)[:place])

    def _shuffled(self, batch: int) -> list[str]:
        random = Random(f"{self._seed}/blend/{batch}")
        if self._stratified:
            start = Random(f"{self._seed}/blend").getrandbits(64)
            first = Fraction((start + batch * _GOLDEN) % _CIRCLE, _CIRCLE)
            points = [first + k for k in range(self._batch)]
        else:
            points = [Fraction(random.getrandbits(64) * self._batch, _CIRCLE) for _ in range(self._batch)]
        order = [self._names[bisect_right(self._bounds, point)] for point in points]
        random.shuffle(order)
        return order
