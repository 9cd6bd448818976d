"""What a run takes of its GPUs, rank by rank and generator by generator, and the least change that makes it fit.

    learner, a rank   its state / ranks                 weights, gradients and AdamW's moments (learner_state.py);
                                                        16 bytes a parameter, where the recipe does not ask for less
                    + the larger of  a micro-batch's activations and what is gathered or copied in bfloat16
                                and  the optimizer's temporaries, 4 bytes a parameter / ranks
                    + 4 bytes a parameter / ranks       the reference policy, where the objective has one
                    + 8 bytes a parameter / ranks       the second AdamW's moments, with relift
    generator, a GPU  the weights / tensor parallel   + the KV cache, of which one sequence must fit

Of the room that each has, a tenth is left free: for CUDA itself, NCCL's buffers and fragments. Everything is counted
from shapes; measured beside it was one learner on one H100 (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from chorus.deploy.learner_state import reference_bytes, state_of
from chorus.deploy.placement import Placement
from chorus.deploy.shapes import Model, Shape, model_of
from chorus.protocol.config.run import Gpu, RunConfig

GIB = 2**30
_CODED, _HALF = {"optimizer": "adamw8bit"}, {"master": "bfloat16"}
_AWAY = [{"offload": what} for what in ("optimizer", "activations", "both")]
# Ways to keep less. With activations on the host each comes after the same without, which needs no checkpointed layers.
_LEANER = (
    *_AWAY, *(_CODED | away for away in ({}, *_AWAY)), *(_CODED | _HALF | away for away in ({}, *_AWAY)),
)  # fmt: skip
_PIECES_BYTES = 8 * 2**26  # in less memory it works piece by piece
HEADROOM = 0.1
USUAL_CARD_GIB = 80.0  # where no card is here and none is named
MOST_CARDS = 256  # that are looked at for a run that does not fit
# What backward needs of one token in one layer of the Llama family, in bytes: for each of its hidden, intermediate
# and key-value widths. Counted from the tensors that autograd keeps (a test counts them again); in bfloat16 the
# norms stay in float32, and a bfloat16 copy of the weights is kept beside.
_KEPT_BYTES = {"float32": (32, 16, 8), "bfloat16": (30, 8, 4)}
_INPUT_BYTES = 4  # of a checkpointed layer, a token and hidden value
# The head works in chunks of at most so many logits, of which about four float32 copies exist at a time.
_HEAD_CHUNK_ELEMENTS = 2**25
_HEAD_BYTES_PER_ELEMENT = 16
# Of sharded layers two are whole at a time, the one that computes and the next, in bfloat16, and one has its gradient,
# in bfloat16 and as it is summed in float32. What is no layer stays whole from forward to backward, gradient included.
_GATHERED_LAYER_BYTES = 2 * 2 + 2 + 4
_GATHERED_ROOT_BYTES = 2 + 2


@dataclass(frozen=True)
class Need:
    """Bytes on one card, and the room there is for them, the headroom taken off."""

    bytes: float
    room: float

    @property
    def fits(self) -> bool:
        return self.bytes <= self.room


@dataclass(frozen=True)
class Needs:
    learner: Need
    generator: Need

    @property
    def fit(self) -> bool:
        return self.learner.fits and self.generator.fits


@dataclass(frozen=True)
class Verdict:
    """`changes`: what `--set` takes; none where the run fits as it is. `cards`: the fewest, where these can't hold it;
    `split`: how many of them the learner has, and one generator.
    """

    needs: Needs
    changes: tuple[str, ...] = ()
    cards: int | None = None
    as_is: Needs | None = None
    split: tuple[int, int] = (1, 1)


# -- one card -----------------------------------------------------------------------------------------------------


def activation_bytes(config: RunConfig, shape: Shape, parameters: float, ranks: int = 1) -> float:
    """What one micro-batch keeps for backward, weights in bfloat16 and layers that are gathered included.

    An estimate for decoders like Llama and Qwen with an attention that does not keep its scores: on an H100 the peak
    was 1 % above it (docs/results.md). A sequence that is longer than learner.token_budget is a micro-batch by itself.
    """
    tokens = _tokens_at_once(config)
    widths = zip(_KEPT_BYTES[config.model.dtype], (shape.hidden, shape.intermediate, shape.kv_width), strict=True)
    layer = tokens * sum(count * width for count, width in widths)
    # On the host, two layers' inputs are on the card at a time: one comes while another is worked on.
    inputs = min(2, shape.layers) if config.learner.activations_on_host else shape.layers
    checkpointed = layer + tokens * inputs * shape.hidden * _INPUT_BYTES
    kept = checkpointed if config.learner.gradient_checkpointing else layer * shape.layers
    kept += tokens * shape.hidden * 12  # the last norm, and the hidden states that the head is given
    kept += _HEAD_BYTES_PER_ELEMENT * min(_HEAD_CHUNK_ELEMENTS, tokens * shape.vocabulary)
    half = config.model.dtype == "bfloat16"
    if ranks == 1:  # weights that are kept in bfloat16 need no copy
        copied = half and config.model.lora is None and config.learner.master == "float32"
        return kept + (2 * parameters if copied else 0)
    gathered = _GATHERED_ROOT_BYTES * shape.root + _GATHERED_LAYER_BYTES * shape.layer
    return kept + gathered * (1 if half else 2)


def _tokens_at_once(config: RunConfig) -> int:
    return max(config.learner.token_budget, config.problems.max_prompt_tokens + config.sampling.max_tokens)


def learner_bytes(config: RunConfig, path: str, ranks: int = 1) -> float | None:
    """What one rank is foreseen to take of the model in `path`, its libraries apart; None: its size is not known."""
    model = model_of(path)
    return None if model is None else _learner_bytes(config, model, ranks)


def _learner_bytes(config: RunConfig, model: Model, ranks: int) -> float:
    state = state_of(config, model)
    activations = activation_bytes(config, model.shape, model.count, ranks) if model.shape else 0.0
    reference = reference_bytes(config, model) / ranks
    if reference and ranks > 1 and model.shape:
        reference += 2 * (model.shape.root + 2 * model.shape.layer)  # gathered, too
    c = config.learner
    plain = (c.optimizer, c.master, c.moments_on_host) == ("adamw", "float32", False)
    updating = state.gradients / ranks if plain else _PIECES_BYTES
    return state.on_cards / ranks + reference + max(activations, updating)


def weight_bytes(config: RunConfig, model: Model, tensor_parallel: int) -> float:
    """A generator's, on each of its GPUs."""
    return model.count * width_of(config) / tensor_parallel


def sequences_at_once(config: RunConfig, model: Model, tensor_parallel: int, card_gib: float, share: float) -> float:
    """How many sequences as long as the context vLLM has room for at a time."""
    if model.shape is None:
        return float("nan")
    room = card_gib * GIB * share * (1 - HEADROOM) - weight_bytes(config, model, tensor_parallel)
    return max(0.0, room / (config.model.context * model.shape.kv_bytes(width_of(config), tensor_parallel)))


def host_bytes(config: RunConfig, model: Model, ranks: int) -> float:
    """A lone rank reads the whole model, of several each reads its part tensor by tensor; later rank 0 holds the
    copies to send, and all ranks one of what a checkpoint stores. What lies there for the cards comes on top."""
    width = width_of(config) if config.model.lora else 4 if config.learner.master == "float32" else 2
    copies = 2 + bool(config.evaluation.decides_after)  # one is kept for who answers a validation
    copies += 2 * config.learner.delta  # the version before and, at most, what differs
    sent = 0 if config.model.lora else copies * width_of(config)
    state = state_of(config, model)
    kept = state.on_hosts
    written = state.stored + (reference_bytes(config, model) if config.reference.resets else 0.0)
    if config.learner.activations_on_host and model.shape:
        kept += ranks * model.shape.layers * _pinned(_tokens_at_once(config) * model.shape.hidden * _INPUT_BYTES)
    return max(model.count * width if ranks == 1 else 0, model.count * sent + written) + kept


def _pinned(count: int) -> int:
    """Bytes of pinned memory for so many: torch takes it in powers of two."""
    return 1 << (count - 1).bit_length()


def width_of(config: RunConfig) -> int:
    return 4 if config.model.dtype == "float32" else 2


def share_of(config: RunConfig, placement: Placement) -> float:
    """vLLM's of a card (generator/vllm_engine.py asks for the same)."""
    return config.generator.gpu_memory or (0.4 if placement.shares_gpus else 0.85)


def needs_of(config: RunConfig, model: Model, placement: Placement, card_gib: float) -> Needs:
    share, card = share_of(config, placement), card_gib * GIB * (1 - HEADROOM)
    tensor_parallel = len(placement.generator_gpus[0])
    beside = max(sum(gpu in replica for replica in placement.generator_gpus) for gpu in placement.learner_gpus)
    return Needs(
        Need(_learner_bytes(config, model, placement.learner_ranks), card * max(0.0, 1 - share * beside)),
        Need(_generator_bytes(config, model, tensor_parallel), card * share),
    )


def _generator_bytes(config: RunConfig, model: Model, tensor_parallel: int) -> float:
    """Weights, and the keys and values of one sequence: with less vLLM does not start."""
    cache = model.shape.kv_bytes(width_of(config), tensor_parallel) if model.shape else 0.0
    return weight_bytes(config, model, tensor_parallel) + config.model.context * cache


# -- the least change ---------------------------------------------------------------------------------------------


def verdict(config: RunConfig, model: Model, placement: Placement, card_gib: float) -> Verdict:
    """Whether the run fits these cards of `card_gib`, and if not, what does: changes first, then more cards."""
    as_is = needs_of(config, model, placement, card_gib)
    if as_is.fit:
        return Verdict(as_is)
    if found := _least_change(config, model, placement, card_gib, len(placement.all_gpus)):
        return replace(found, as_is=as_is)
    return replace(fewest(config, model, card_gib), as_is=as_is)


def leaner(config: RunConfig, model: Model, placement: Placement, card_gib: float) -> Verdict | None:
    """What keeps less on these cards until the run fits, beside the least change; None: not even all of it does.

    What costs time comes before what costs digits.
    """
    for told, changed in _lean(config):
        if found := _least_change(changed, model, placement, card_gib, len(placement.all_gpus)):
            return replace(found, changes=(*told, *found.changes))
    return None


def kept_by_each(config: RunConfig, model: Model, ranks: int) -> Iterator[tuple[str, float]]:
    """Every way to keep less state, as `--set` takes it, and what a rank's then takes of its card."""
    for told, changed in _lean(config):
        if changed.learner.activations_on_host != config.learner.activations_on_host:
            continue
        yield " ".join(told), state_of(changed, model).on_cards / ranks


def _lean(config: RunConfig) -> Iterator[tuple[tuple[str, ...], RunConfig]]:
    for kept in _LEANER:
        told = {key: value for key, value in kept.items() if getattr(config.learner, key) != value}
        if told and not config.learner.model_copy(update=told).fault(config.run.steps, config.model.dtype):
            changed = config.model_copy(update={"learner": config.learner.model_copy(update=told)})
            yield tuple(f"learner.{key}={value}" for key, value in told.items()), changed


def fewest(config: RunConfig, model: Model, card_gib: float) -> Verdict:
    """The fewest cards that can hold the run, with the changes that it takes; `cards` is 0 where none are enough."""
    if found := _least_change(config, model, None, card_gib, 1):
        return replace(found, cards=1)
    card, enough = card_gib * GIB * (1 - HEADROOM), []
    for _, changed in _settings(config, alone=False):
        room = card * (changed.generator.gpu_memory or 0.85)
        parts = [t for t in _tensor_parallel(model) if _generator_bytes(changed, model, t) <= room]
        ranks = next((r for r in range(1, MOST_CARDS) if parts and _learner_bytes(changed, model, r) <= card), None)
        enough += [parts[0] + ranks] if ranks else []
    cards = min(enough, default=0)
    if cards and (found := _least_change(config, model, None, card_gib, cards)):
        return replace(found, cards=cards)
    nothing = Need(float("inf"), 0.0)
    return Verdict(Needs(nothing, nothing), cards=0)


def _least_change(
    config: RunConfig, model: Model, placement: Placement | None, card_gib: float, cards: int
) -> Verdict | None:
    """The first that fits, by the number of changes; among equally many, what costs least speed comes first."""
    ways = list(product(_placements(config, model, placement, cards), list(_settings(config, alone=cards == 1))))
    ways.sort(key=lambda way: bool(way[0][0]) + len(way[1][0]))  # stable
    for (layout, place), (changes, changed) in ways:
        needs = needs_of(changed, model, place, card_gib)
        if needs.fit:
            split = place.learner_ranks, len(place.generator_gpus[0])
            return Verdict(needs, (*layout, *changes), split=split)
    return None


def _settings(config: RunConfig, alone: bool) -> Iterator[tuple[tuple[str, ...], RunConfig]]:
    """The recipe as it is, and with each choice of settings that take less memory; `alone`: on one card for all."""
    longest = config.problems.max_prompt_tokens + config.sampling.max_tokens
    kept, budget = config.learner.gradient_checkpointing, config.learner.token_budget
    share = config.generator.gpu_memory
    budgets = [b for b in (budget // 2, budget // 4, budget // 8) if b > longest] + [longest] * (budget > longest)
    for checkpointing, memory, tokens in product(
        (kept,) if kept else (False, True),
        (share, *(s for s in (0.5, 0.4, 0.3, 0.2) if s < (share or 0.4))) if alone else (share,),
        (budget, *budgets),
    ):
        told = {
            "learner.gradient_checkpointing=true": checkpointing != kept,
            f"generator.gpu_memory={memory:g}": memory != share,
            f"learner.token_budget={tokens}": tokens != budget,
        }
        learner = config.learner.model_copy(update={"gradient_checkpointing": checkpointing, "token_budget": tokens})
        generator = config.generator.model_copy(update={"gpu_memory": memory})
        changed = config.model_copy(update={"learner": learner, "generator": generator})
        yield tuple(change for change, made in told.items() if made), changed


def _tensor_parallel(model: Model) -> list[int]:
    return [t for t in (1, 2, 4, 8) if model.shape is None or model.shape.heads % t == 0]


def _placements(
    config: RunConfig, model: Model, placement: Placement | None, cards: int
) -> Iterator[tuple[tuple[str, ...], Placement]]:
    """How the learner's ranks and the generators can share `cards`; the one that comes by itself is the first."""
    names: Sequence[Gpu] = placement.all_gpus if placement else range(cards)
    if placement is not None:
        yield (), placement
    elif cards == 1:
        yield (), Placement([], [[]], list(names), [list(names)], 1, list(names))
    else:
        yield (), _layout(names, config.placement.learner_ranks or max(1, cards // 4), 1)
    for tensor_parallel in _tensor_parallel(model):
        for ranks in range(1, cards - tensor_parallel + 1):
            place = _layout(names, ranks, tensor_parallel)
            if tensor_parallel == 1 and not config.placement.learner_gpus:
                yield (f"placement.learner_ranks={ranks}",), place
            else:
                yield _spelt(place), place


def _layout(names: Sequence[Gpu], ranks: int, tensor_parallel: int) -> Placement:
    """The first cards learn, the others generate."""
    rest = names[ranks:]
    starts = range(0, len(rest) - tensor_parallel + 1, tensor_parallel)
    replicas = [list(rest[n : n + tensor_parallel]) for n in starts]
    return Placement([], [[]] * len(replicas), list(names[:ranks]), replicas, ranks, list(names))


def _spelt(place: Placement) -> tuple[str, str]:
    generators = ",".join(f"[{','.join(map(str, replica))}]" for replica in place.generator_gpus)
    learner = ",".join(map(str, place.learner_gpus))
    return f"placement.learner_gpus=[{learner}]", f"placement.generator_gpus=[{generators}]"
