"""The policy: a Hugging Face causal model that answers with log-probabilities instead of logits.

The head runs only where a completion token is predicted, in chunks that are recomputed in the backward
pass, so that [tokens, vocabulary] in float32 never exists for a whole micro-batch.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM

from chorus.learner.training.architecture import attention_of, check_engine, class_of, file_tensors, finish_logits
from chorus.learner.training.compiled import compile_layers
from chorus.learner.training.lora import adapter_parameters, add_adapters, first_adapters, is_adapter, switched_off
from chorus.learner.training.sharding import load_in_parts, put_parts_back, shard
from chorus.protocol.config.lora import LoraSection
from chorus.protocol.config.run import RunConfig
from chorus.protocol.runtime.exits import CannotGoOn, first_line

_CHUNK_ELEMENTS = 2**25  # of one chunk of logits: 128 MiB in float32
_CACHED_ELEMENTS = 2**17  # 512 KiB in float32, which a core's own cache holds


class Policy(torch.nn.Module):
    """Wraps the model so that FSDP sees one forward: everything that trains happens inside it.

    kept_on_host: what the decoder keeps for backward lies in host memory until then. Of a layer that is checkpointed
    that is its input; what it computes again stays beside it.
    """

    def __init__(
        self, hf: Any, temperature: float, lora: LoraSection | None = None, kept_on_host: bool = False
    ) -> None:
        super().__init__()
        self.hf = hf
        self.temperature = temperature
        self.lora = lora
        self.kept_on_host = kept_on_host

    def forward(
        self,
        input_ids: torch.Tensor,
        index: torch.Tensor,
        target: torch.Tensor | None = None,
        top: int = 0,
        entropy_gradient: bool = False,
        temperature: torch.Tensor | None = None,
        own: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities at the sampling temperature, in float32.

        Args:
            input_ids: [rows, width], right-padded.
            index: [n] flat positions at which the next token is predicted.
            target: [n] next tokens. None: the `top` likeliest instead.
            temperature: [n] at which each was sampled, where that is not the run's for all.
            own: by the model's own forward pass, logits of all tokens at once: what `check_forward` compares with.

        Returns:
            (log-probability of the target [n], entropy [n], with gradient only where `entropy_gradient` asks for
            it), or, without a target, (log-probabilities [n, top], token ids [n, top]).
        """
        if own and target is not None:
            logits = self.hf(input_ids=input_ids, use_cache=False).logits.flatten(0, 1)[index].float()
            logp = torch.log_softmax(logits / self.temperature, dim=-1)
            return logp.gather(-1, target.unsqueeze(-1)).squeeze(-1), _entropy(logp)
        with self._keeping():
            hidden = self.hf.get_decoder()(input_ids=input_ids, use_cache=False).last_hidden_state
        hidden = hidden.reshape(-1, hidden.shape[-1])[index]
        head = self.hf.get_output_embeddings()
        if target is None:
            best = self._log_softmax(head, hidden).topk(top, dim=-1)
            return best.values, best.indices
        rows = max(1, _CHUNK_ELEMENTS // head.weight.shape[0])
        if len(index) <= rows:
            return self._score(head, hidden, target, entropy_gradient, temperature)
        heats = [None] * -(-len(index) // rows) if temperature is None else temperature.split(rows)
        parts = [
            checkpoint(self._score, head, h, t, entropy_gradient, heat, use_reentrant=False)
            for h, t, heat in zip(hidden.split(rows), target.split(rows), heats, strict=True)
        ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])  # type: ignore[index]

    def _keeping(self) -> AbstractContextManager[object]:
        return torch.autograd.graph.save_on_cpu(pin_memory=True) if self.kept_on_host else nullcontext()

    def _log_softmax(
        self, head: torch.nn.Module, hidden: torch.Tensor, temperature: torch.Tensor | None = None
    ) -> torch.Tensor:
        logits = finish_logits(self.hf.config, head(hidden).float())
        if temperature is not None:
            logits = logits / temperature.unsqueeze(-1)
        elif self.temperature != 1.0:
            logits = logits / self.temperature
        return torch.log_softmax(logits, dim=-1)

    def _score(
        self,
        head: torch.nn.Module,
        hidden: torch.Tensor,
        target: torch.Tensor,
        entropy_gradient: bool,
        temperature: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logp = self._log_softmax(head, hidden, temperature)
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropy = _entropy(logp)
        return logp.gather(-1, target.unsqueeze(-1)).squeeze(-1), entropy


def _entropy(logp: torch.Tensor) -> torch.Tensor:
    """[n] nats of the distributions logp [n, vocabulary]."""
    if logp.device.type != "cpu":
        return -(logp.exp() * logp).sum(-1)
    rows = max(1, _CACHED_ELEMENTS // logp.shape[-1])  # whole, its two temporaries would be a third of the head's time
    return torch.cat([-(part.exp() * part).sum(-1) for part in logp.split(rows)])


def load_policy(config: RunConfig, device: torch.device) -> Policy:
    """The model in the dtype of its master weights; in float32 a bfloat16 run computes under autocast.

    A collective where there are several ranks: each keeps its part.
    """
    path, lora, c = config.model.path, config.model.lora, config.learner
    dtype = getattr(torch, config.model.dtype if lora else c.master)  # beside adapters it never changes
    made: list[Policy] = []

    def prepare(hf: Any) -> dict[str, torch.Tensor]:
        """Adapters and parts, and what adapters begin as."""
        if lora:
            add_adapters(hf, lora, getattr(torch, c.master))
        made.append(Policy(hf, config.sampling.temperature, lora, c.activations_on_host))
        if dist.is_initialized():
            shard(made[0], config.model.dtype == "bfloat16", device)
        return first_adapters(hf, config.run.seed) if lora else {}

    try:
        check_engine(path, config.model.dtype, config.model.context, not config.placement.generator_gpus)
        how = {"dtype": dtype, "attn_implementation": attention_of(path, device.type == "cuda")}
        if dist.is_initialized():
            load_in_parts(*class_of(path), path, device, prepare, **how)
        else:
            hf: Any = AutoModelForCausalLM.from_pretrained(path, **how)
            added = {name: value.to(hf.get_parameter(name).dtype) for name, value in prepare(hf).items()}
            hf.load_state_dict(added, strict=False, assign=True)
            hf.to(device)
    except CannotGoOn:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        what = "no such folder or hub name" if not Path(path).exists() else "no model that can be loaded"
        raise CannotGoOn(
            f"model.path {path}: {what} ({first_line(error)}); give a Hugging Face folder or a hub name"
        ) from None
    policy = made[0]
    policy.hf.config.use_cache = False
    if c.gradient_checkpointing:
        checkpoint_layers(policy.hf)
    if c.compile:
        compile_layers(policy.hf, device)
    return policy


class WithoutAdapter:
    """A policy as it was before its adapter: the reference of a run that trains one, without a second model."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        with switched_off(self._policy.hf):
            return self._policy(*args, **kwargs)


def freeze(policy: Policy) -> Policy:
    """A reference policy: the same weights for good."""
    policy.requires_grad_(False)
    policy.hf.eval()
    return policy


def checkpoint_layers(hf: Any) -> None:
    """Keep only each layer's input and compute the rest again in backward.

    transformers does so in training mode only, which also turns dropout on; that would make the learner's
    log-probabilities others than the generators', so it is set to 0.
    """
    hf.gradient_checkpointing_enable({"use_reentrant": False})
    hf.train()
    for module in hf.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010, it is no tensor, as the types would have it


@dataclass(frozen=True)
class Sent:
    """One parameter of the learner, and the tensors of it that files have, by name: no memory, only shapes."""

    name: str
    parameter: torch.Tensor
    tensors: dict[str, torch.Tensor]


def sent_parameters(policy: Policy) -> list[Sent]:
    """What travels: the whole model, or adapters alone."""
    if policy.lora:
        return [Sent(name, p, {name: _shape_of(p)}) for name, p in adapter_parameters(policy.hf)]
    return file_parameters(policy)


def file_parameters(policy: Policy) -> list[Sent]:
    """The model's parameters as its files have them, adapters apart; a tied head once, as the embedding."""
    put_parts_back(policy)
    found = []
    for own, p in policy.hf.named_parameters():
        name = own.replace(".base_layer.", ".")
        if not is_adapter(own):
            found.append(Sent(name, p, file_tensors(policy.hf, name, _shape_of(p))))
    return found


def as_files_have_it(policy: Policy, sent: Sent, full: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same tensors, with what the whole parameter holds."""
    return {sent.name: full} if sent.name in sent.tensors else file_tensors(policy.hf, sent.name, full)


def _shape_of(p: torch.Tensor) -> torch.Tensor:
    return torch.empty(p.shape, dtype=p.dtype, device="meta")
