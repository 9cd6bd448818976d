"""Six architectures that need more than a Llama: their logits, their experts, their attention.

`make models` does the same with a real vLLM, for all of tests/support/architectures.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import save_architecture
from transformers import AutoModelForCausalLM

from chorus.learner.training import policy as policies
from chorus.learner.training.architecture import attention_of, check_engine
from chorus.learner.training.batch import TrainingSequence
from chorus.learner.training.distributed import DistributedTrainer
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import Version, unpack_floats, unpack_ids
from chorus.protocol.run_folder.checkpoints import Manifest
from chorus.protocol.runtime.exits import CannotGoOn
from chorus.protocol.runtime.model_folder import tensors_of

SIX = ["cohere", "gemma2", "gpt_oss", "granite", "mixtral", "qwen3_moe"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_architecture(name, tmp_path_factory.mktemp(name)) for name in SIX}


def crew_of(model: Path, start_from: Path | None = None) -> DistributedTrainer:
    config = RunConfig.model_validate(
        {
            "model": {"path": str(model), "dtype": "float32"},
            "problems": {"train": ["any"]},
            "templates": {"names": ["qwen-math"]},
            "learner": {"lr": 1e-3},
        }
    )
    return DistributedTrainer(config, CPU, start_from, check_exports=True)


def minibatches() -> list[list[TrainingSequence]]:
    rows = [np.arange(5 + k, 37 + k, dtype=np.int32) for k in range(2)]  # longer than a sliding window
    behaviour = np.full(12, -4.0, dtype=np.float32)
    return [
        [
            TrainingSequence(row[:20], row[20:], behaviour, advantage)
            for row, advantage in zip(rows, (1.0, -1.0), strict=True)
        ]
    ]


@pytest.mark.parametrize("name", SIX)
def test_it_trains_is_sent_as_its_files_are_resumes_and_is_exported(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    crew = crew_of(folders[name])
    prefix = list(range(5, 30))
    snapshot = crew.snapshot(Version(fence=1, step=0), [prefix])
    own: Any = AutoModelForCausalLM.from_pretrained(folders[name], dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        logp = torch.log_softmax(own(torch.tensor([prefix])).logits[0, -1], -1)
    [check] = snapshot.checks
    ids, told = unpack_ids(check.token_ids).tolist(), unpack_floats(check.logprobs)
    np.testing.assert_allclose(told, logp[ids].numpy(), atol=3e-5)
    assert float(logp.max() - logp.median()) > 0.5, "logits that say nothing would agree with any"

    stored = {name: tuple(shape) for name, shape in tensors_of(folders[name])}
    tied = {"lm_head.weight"} - {slot.tensor.name for slot in snapshot.plan.slots}
    assert {s.tensor.name: tuple(s.tensor.shape) for s in snapshot.plan.slots} == {
        name: shape for name, shape in stored.items() if name not in tied
    }

    assert crew.step(minibatches()).skipped_updates == 0
    saved = crew.save(tmp_path, Manifest(1, 0, {})).wait()
    crew.step(minibatches())
    resumed = crew_of(folders[name], saved)
    exported: Any = AutoModelForCausalLM.from_pretrained(saved / "huggingface", dtype=torch.float32)
    for (part, ours), theirs in zip(resumed.trainer.policy.hf.named_parameters(), exported.parameters(), strict=True):
        assert torch.equal(ours, theirs), part
    resumed.step(minibatches())
    for (part, a), b in zip(crew.trainer.policy.named_parameters(), resumed.trainer.policy.parameters(), strict=True):
        assert torch.equal(a, b), part


def test_attention_is_what_the_class_computes_right_with(folders: dict[str, Path]) -> None:
    found = {name: (attention_of(str(folders[name]), False), attention_of(str(folders[name]), True)) for name in SIX}
    assert found["granite"] == ("sdpa", "sdpa")
    assert found["gpt_oss"] == ("eager", "flex_attention"), "it has no sdpa"
    assert found["gemma2"] == ("eager", "flex_attention"), "sdpa passes over the soft cap of its scores"


@pytest.mark.parametrize("name", ["cohere", "gemma2", "granite"])
def test_logits_that_are_made_in_a_way_not_known_are_refused_at_the_start(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "finish_logits", lambda _, logits: logits)
    with pytest.raises(
        CannotGoOn, match=rf"a {name} model makes its logits in a way that Chorus does not know: .+ off by"
    ):
        crew_of(folders[name])


def test_names_that_stand_in_no_file_are_refused_at_the_start(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine would pass over them without a word."""
    monkeypatch.setattr(policies, "file_tensors", lambda _, name, tensor: {name: tensor})
    with pytest.raises(CannotGoOn, match=r"a mixtral model under the names of its files: .+ is not there;"):
        crew_of(folders["mixtral"])


@pytest.mark.parametrize(
    ("name", "works", "why"),
    [
        ("apertus", ("bfloat16", 128, True), r"computes apertus .+ in bfloat16 in a float32 run"),
        ("cohere2, longer than its window", ("float32", 16, True), r"computes cohere2 .+ differ beyond 16 tokens"),
        ("lfm2", ("float32", 128, False), r"computes lfm2 .+ is off on CPUs"),
    ],
)
def test_what_an_engine_is_known_to_compute_in_another_way_is_refused_at_the_start(
    name: str, works: tuple[str, int, bool], why: str, tmp_path: Path
) -> None:
    folder = save_architecture(name, tmp_path)
    check_engine(str(folder), *works)
    with pytest.raises(CannotGoOn, match=why):
        crew_of(folder)
