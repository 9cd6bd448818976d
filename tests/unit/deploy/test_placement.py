"""Who gets which cores and devices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chorus.deploy.placement import place
from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.exits import CannotGoOn

Configure = Callable[..., RunConfig]


@pytest.mark.parametrize(
    ("cores", "replicas", "learner", "generators"),
    [
        ([0], 1, [0], [[0]]),
        ([0, 1], 1, [1], [[0]]),
        ([0, 1], 2, [1], [[0], [0]]),
        ([4, 6], 1, [6], [[4]]),
        ([0, 1, 2], 1, [2], [[0, 1]]),
        ([0, 1, 2, 3], 2, [2, 3], [[0], [1]]),
        (list(range(16)), 2, list(range(8, 16)), [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_on_the_cpu_learner_and_generators_share_no_core_where_there_are_two(
    configure: Configure, cores: list[int], replicas: int, learner: list[int], generators: list[list[int]]
) -> None:
    placement = place(configure(generator={"replicas": replicas}), cores, [])
    assert placement.learner_cpus == learner
    assert placement.generator_cpus == generators
    assert placement.learner_gpus == []
    assert placement.learner_ranks == 1


@pytest.mark.parametrize(
    ("gpus", "learner", "generators"),
    [
        (1, [0], [[0]]),
        (2, [0], [[1]]),
        (4, [0], [[1], [2], [3]]),
        (8, [0, 1], [[2], [3], [4], [5], [6], [7]]),
    ],
)
def test_every_gpu_gets_work(configure: Configure, gpus: int, learner: list[int], generators: list[list[int]]) -> None:
    placement = place(configure(), [0, 1], list(range(gpus)))
    assert (placement.learner_gpus, placement.generator_gpus) == (learner, generators)
    assert placement.learner_ranks == len(learner)
    assert placement.replicas == len(generators)


def test_a_number_of_replicas_in_the_recipe_is_kept(configure: Configure) -> None:
    placement = place(configure(generator={"replicas": 2}), [0, 1], [0, 1, 2, 3])
    assert placement.generator_gpus == [[1], [2]]


def test_a_shared_gpu_is_said_aloud(configure: Configure) -> None:
    assert "host memory (gloo)" in place(configure(), [0, 1], [0]).describe()
    assert "host memory" not in place(configure(), [0, 1], [0, 1]).describe()


def test_the_recipe_decides(configure: Configure) -> None:
    wanted = {"learner_gpus": [3], "generator_gpus": [[0, 1], [2]]}
    placement = place(configure(placement=wanted), [0, 1], [0, 1, 2, 3])
    assert placement.learner_gpus == [3]
    assert placement.generator_gpus == [[0, 1], [2]]
    on_cores = place(configure(placement={"learner_cpus": [0], "generator_cpus": [[1]]}), [0, 1], [])
    assert (on_cores.learner_cpus, on_cores.generator_cpus) == ([0], [[1]])


@pytest.mark.parametrize(
    ("wanted", "gpus", "message"),
    [
        ({"learner_gpus": [0]}, [0, 1], "belong together"),
        ({"learner_gpus": [0], "generator_gpus": [[7]]}, [0, 1], r"placement.generator_gpus: no GPU 7 here"),
        ({"learner_cpus": [9]}, [], r"placement.learner_cpus: no core 9 here; there are 0,1"),
        ({"learner_ranks": 2}, [0, 1], "leave one to generate"),
    ],
)
def test_what_does_not_fit_is_refused(
    configure: Configure, wanted: dict[str, object], gpus: list[int], message: str
) -> None:
    with pytest.raises(CannotGoOn, match=message):
        place(configure(placement=wanted), [0, 1], gpus)
