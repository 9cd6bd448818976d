"""The least that a training step can be, given its micro-batches ready made.

Forward, log-probabilities of the completion tokens by the model's own head, mean loss, backward, clip, AdamW.
No ratios, no clipping of them, no figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LlamaForCausalLM

from chorus.learner.training.batch import MicroBatch
from chorus.protocol.config.run import RunConfig


class BareLoop:
    """Maximizes advantage x log-probability a token; with advantage 1 that is supervised learning."""

    def __init__(self, model: LlamaForCausalLM, config: RunConfig) -> None:
        c = config.learner
        self._model = model
        self._clip = c.grad_clip
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=c.lr, betas=c.betas, weight_decay=c.weight_decay, foreach=True
        )

    def step(self, batches: Sequence[MicroBatch]) -> float:
        """One optimizer step on all micro-batches; returns its loss."""
        total = sum(len(batch.target) for batch in batches)
        loss_sum = 0.0
        self._optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            hidden = self._model.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
            logits = self._model.lm_head(hidden.flatten(0, 1)[batch.index])
            logp = torch.log_softmax(logits, dim=-1).gather(-1, batch.target.unsqueeze(-1)).squeeze(-1)
            loss = -(batch.advantage * logp).sum() / total
            loss.backward()
            loss_sum += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
        self._optimizer.step()
        return loss_sum
