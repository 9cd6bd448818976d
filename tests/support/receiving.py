"""A scripted engine that takes the learner's weights over real process groups, and `chorus generator` with it.

Run as a program it is the real command (agent, ledger, reward client, draining) in which only vLLM is replaced:

    python tests/support/receiving.py generator --config ... --run-id ... --name gen-0

CHORUS_TEST_DELAY_S: what a group takes. CHORUS_TEST_CHECKS_WEIGHTS: transformers computes the weight check.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from intake import Intake
from scripted import ScriptedEngine

from chorus.generator.adapter import Base, Delivery, merge
from chorus.generator.engine import Completion, EngineError
from chorus.protocol.messages import SyncOffer, unpack_floats, unpack_ids
from chorus.protocol.runtime.adapters import Adapter


class ReceivingEngine(ScriptedEngine):
    """Bytes come for real, into `received`; completions are drawn from `answers`. With a `model` the weight check is
    real too: transformers computes it with the weights received. Without, its verdict is scripted."""

    def __init__(self, answers: list[list[int]], delay_s: float = 0.0, model: str = "") -> None:
        super().__init__(delay_s=delay_s)
        self.answers = answers
        self._model = _load(model) if model else None
        self._base = Base(Path(model)) if model else None
        self._in_place: list[Adapter] = []
        self.received: dict[str, torch.Tensor] = {}
        self._intake = Intake()

    async def start(self) -> None:
        await super().start()
        self._intake = Intake()

    async def generate(self, *args: Any) -> list[Completion]:
        completions = await super().generate(*args)
        drawn = []
        for c in completions:
            tokens = random.choice(self.answers)
            (fence, step, _) = c.versions[0]
            drawn.append(Completion(tokens, [-1.0] * len(tokens), [(fence, step, len(tokens))], "stop"))
        return drawn

    async def join_group(self, offer: SyncOffer) -> None:
        await asyncio.to_thread(_reported, self._intake.join, offer)

    async def receive(self, offer: SyncOffer) -> None:
        self.received = await asyncio.to_thread(_reported, self._receive, offer)
        if offer.adapter and self._base:
            self.received = self._merged(self._base, Delivery(offer.adapter.scaling, list(self.received.items())))
        await super().receive(offer)

    async def adapter_in_place(self, deadline_s: float) -> list[Adapter]:
        return self._in_place

    def _merged(self, base: Base, delivery: Delivery) -> dict[str, torch.Tensor]:
        """As the real receiver does it, of a model whose layers are not fused."""
        whole, moved = {}, {}
        for name, parts in delivery.parts.items():
            weight, cpu = base.read(name), torch.device("cpu")
            whole[name], moved[name] = merge(weight, *parts, delivery.scaling, torch.float32, cpu)
        self._in_place = [delivery.seen(moved)]
        return whole

    async def logprob_gaps(self, offer: SyncOffer) -> np.ndarray:
        if self._model is None:
            return await super().logprob_gaps(offer)
        return await asyncio.to_thread(self._gaps, self._model, offer)

    @torch.no_grad()
    def _gaps(self, model: Any, offer: SyncOffer) -> np.ndarray:
        own = model.state_dict()
        for name, tensor in self.received.items():
            own[name].copy_(tensor)
        gaps = []
        for point in offer.checks:
            ids = torch.tensor(unpack_ids(point.prefix).astype(np.int64))[None]
            logp = torch.log_softmax(model(ids).logits[0, -1] / offer.temperature, -1)
            gaps.append(np.abs(logp[unpack_ids(point.token_ids).tolist()].numpy() - unpack_floats(point.logprobs)))
        return np.concatenate(gaps)

    def _receive(self, offer: SyncOffer) -> dict[str, torch.Tensor]:
        for _ in self._intake.take(offer):
            pass
        return self._intake.received


def _load(model: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


def _reported(call: Any, offer: SyncOffer) -> Any:
    """torch's errors as the engine's."""
    try:
        return call(offer)
    except RuntimeError as error:
        raise EngineError(f"scripted transfer: {str(error).splitlines()[0]}") from None


def _main() -> int:
    import chorus.generator.main as command
    from chorus.cli.main import main

    def engine(config: Any, *_: Any) -> ReceivingEngine:
        tokenizer = command.load_tokenizer(config.model.path)
        answers = [tokenizer.encode(f"\\boxed{{{n}}}").ids for n in range(10)]
        model = config.model.path if os.environ.get("CHORUS_TEST_CHECKS_WEIGHTS") else ""
        return ReceivingEngine(answers, float(os.environ.get("CHORUS_TEST_DELAY_S", "0.2")), model)

    command.VllmEngine = engine  # type: ignore[assignment,misc]
    torch.set_num_threads(1)
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(_main())
