"""Who gets which cores and devices."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from chorus.deploy import placement as placement_module
from chorus.deploy.placement import place, visible_gpus
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


CARD, OTHER, SLICE = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-0aa4", "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"
LISTED = f"""GPU 0: NVIDIA H100 80GB HBM3 (UUID: {CARD})
GPU 1: NVIDIA H100 80GB HBM3 (UUID: {OTHER})
  MIG 1g.10gb     Device  0: (UUID: {SLICE})
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose driver lists two cards, one of them with a MIG instance."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'LIST'\n{LISTED}LIST\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (None, [0, 1]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,0", [1, 0]),
        (f"{CARD},{OTHER}", [CARD, OTHER]),
        (f" {CARD} , {SLICE} ", [CARD, SLICE]),
        ("GPU-8932f937", ["GPU-8932f937"]),
        (f"MIG-c6d4,{CARD},-1,7", ["MIG-c6d4", CARD]),
    ],
)
def test_gpus_are_seen_as_the_environment_names_them(text: str | None, seen: list[int | str]) -> None:
    assert visible_gpus({} if text is None else {"CUDA_VISIBLE_DEVICES": text}) == seen


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("gpu0", r"CUDA_VISIBLE_DEVICES=gpu0: 'gpu0' names no GPU; give numbers, GPU-UUIDs or MIG-UUIDs"),
        ("0,2", rf"there is no GPU 2 here \(nvidia-smi lists {CARD}, .*\); name one of these"),
        ("GPU-dead", r"there is no GPU GPU-dead here"),
        ("0,0", r"0 is named twice, and CUDA then sees none; name it once"),
    ],
)
def test_names_that_lead_to_no_gpu_are_refused(text: str, line: str) -> None:
    with pytest.raises(CannotGoOn, match=line):
        visible_gpus({"CUDA_VISIBLE_DEVICES": text})


@pytest.mark.parametrize("text", [CARD, SLICE, "0"])
def test_gpus_named_where_there_is_no_driver_are_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(placement_module, "_TRACES", (str(tmp_path / "driver"),))
    with pytest.raises(CannotGoOn, match="there is no GPU driver on this machine; unset it to run on the CPU"):
        visible_gpus({"CUDA_VISIBLE_DEVICES": text})
    (tmp_path / "driver").write_text("")
    assert [str(name) for name in visible_gpus({"CUDA_VISIBLE_DEVICES": text})] == [text]


def test_gpus_named_by_uuid_are_placed_by_their_names(configure: Configure) -> None:
    placement = place(configure(), [0, 1], [CARD, OTHER, SLICE])
    assert (placement.learner_gpus, placement.generator_gpus) == ([CARD], [[OTHER], [SLICE]])
    assert f"learner on GPU {CARD}" in placement.describe()
    wanted = {"learner_gpus": [OTHER], "generator_gpus": [[CARD], ["2"]]}
    assert place(configure(placement=wanted), [0, 1], [2, CARD, OTHER]).generator_gpus == [[CARD], [2]]
    with pytest.raises(CannotGoOn, match=rf"placement.generator_gpus: no GPU 2 here; there are {CARD}"):
        place(configure(placement=wanted), [0, 1], [CARD, OTHER])


@pytest.mark.parametrize("name", ["gpu0", "GPU-", "-1", -1, "GPU-1;rm"])
def test_a_recipe_names_gpus_by_number_or_uuid(configure: Configure, name: object) -> None:
    with pytest.raises(ValidationError, match=r"by its number, by GPU-UUID or by MIG-UUID"):
        configure(placement={"learner_gpus": [name], "generator_gpus": [[0]]})


@pytest.mark.parametrize(
    ("learner", "generator", "memory", "card"),
    [(0, 0, True, True), (0, 1, False, False), (CARD, OTHER, False, False), ("MIG-a", "MIG-b", False, True)],
)
def test_mig_instances_share_no_memory_but_perhaps_a_card(
    configure: Configure, learner: object, generator: object, memory: bool, card: bool
) -> None:
    config = configure(placement={"learner_gpus": [learner], "generator_gpus": [[generator]]})
    assert (config.shares_gpu_memory, config.shares_a_gpu) == (memory, card)
