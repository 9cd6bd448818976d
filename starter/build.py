"""Builds the tiny policy of the CPU demo: a Llama of 0.7 M parameters, warmed up on sloppy solutions.

The folder that comes out is an ordinary Hugging Face checkpoint (config, float32 weights, tokenizer), which
both transformers and vLLM load. It is built once: its name holds a hash of all that determines it.

Llama rather than Qwen2: transformers 5 reads every `qwen2` checkpoint with its own tokenizer class, and a
vocabulary of one's own would silently come out garbled.
"""

import hashlib
import json
import math
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import fmean

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from chorus.problems import arithmetic, hints
from chorus.protocol.templates.load import known_templates
from chorus.protocol.templates.template import Template, render_chatml
from chorus.starter import courses, solutions, tokenizer
from chorus.starter.courses import CHAINS, Course
from chorus.starter.tokenizer import END_OF_TEXT_ID, END_OF_TURN, END_OF_TURN_ID, build_tokenizer

PARTS = 2  # of a batch, each of solutions of like length: little padding, and what a layer makes stays in the caches
RECENT = 20  # steps whose mean loss tells whether it solves what it is shown
THREADS = 2  # fixed, since the order of a sum (and so the weights) depends on it
IGNORED = -100  # label of positions that carry no loss


def build_starter(
    cache_dir: Path,
    template_names: Sequence[str],
    seed: int = 0,
    *,
    steps: int | None = None,
    extra_templates: Sequence[Path] = (),
    log: Callable[[str], None] = print,
    course: Course = CHAINS,
) -> Path:
    """The starter policy's folder, `cache_dir/<course>-<hash>`; built when it is not there yet (1-4 min).

    `extra_templates` are files or folders as for `load_templates`. The same arguments give the same weights
    on one machine. Two processes may build at once: each builds apart, the first to finish keeps its folder.
    Raises ValueError for a template name that is not known.
    """
    templates = _chosen(template_names, extra_templates)
    steps = steps or course.steps
    folder = cache_dir / f"{course.name}-{_fingerprint(templates, seed, steps, course)}"
    if folder.is_dir():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="starter-building-", dir=cache_dir))
    try:
        tokenizer = build_tokenizer(templates, course.words)
        model = warm_start(templates, tokenizer, seed, steps, log, course)
        model.save_pretrained(scratch)
        _save_tokenizer(tokenizer, scratch)
        _make_readable(scratch)
        try:
            scratch.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def warm_start(
    templates: Sequence[Template],
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    steps: int,
    log: Callable[[str], None],
    course: Course = CHAINS,
) -> LlamaForCausalLM:
    """A model trained from scratch: on exact solutions of training problems, then on sloppy ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(_config(tokenizer, course))
            _train(model, templates, tokenizer, Random(seed), steps, log, course)
    finally:
        torch.set_num_threads(threads)
    return model.eval()


def _train(
    model: LlamaForCausalLM,
    templates: Sequence[Template],
    tokenizer: PreTrainedTokenizerFast,
    random: Random,
    steps: int,
    log: Callable[[str], None],
    course: Course,
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=course.peak_lr, betas=(0.9, 0.95), weight_decay=0.01)
    parameters = sum(p.numel() for p in model.parameters())
    log(f"starter: warming up {parameters:,} parameters for {steps} steps of {course.batch} solutions")
    started = time.monotonic()
    model.train()
    exact, step = int(course.exact * steps), 0
    recent: deque[float] = deque(maxlen=RECENT)
    while step < steps:
        step += 1
        optimizer.param_groups[0]["lr"] = course.peak_lr * _lr_factor(step - 1, steps)
        prompts, completions = _examples(templates, course, random, sloppy=step > exact)
        recent.append(_backward(model, _encode(tokenizer, prompts, completions)))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            seconds = time.monotonic() - started
            log(f"starter: step {step} of {steps}, loss {recent[-1]:.3f}, {seconds:.0f} s")
        if step < exact and len(recent) == RECENT and fmean(recent) <= course.learned:
            log(f"starter: step {step} of {steps}, it solves them; on to step {exact}")
            step = exact


def _examples(
    templates: Sequence[Template], course: Course, random: Random, sloppy: bool
) -> tuple[list[str], list[str]]:
    """A batch of prompts and of the completions to learn."""
    prompts: list[str] = []
    completions: list[str] = []
    for _ in range(course.batch):
        template = random.choice(templates)
        text, completion = course.example(template, random, sloppy)
        prompts.append(render_chatml(template, text))
        completions.append(completion + END_OF_TURN)
    return prompts, completions


def _encode(
    tokenizer: PreTrainedTokenizerFast, prompts: list[str], completions: list[str]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batch in parts: token ids and labels, int64 [rows, tokens]; only the completion and its end carry a label."""
    # Encoded apart, as a generator sees them: no token may span prompt and completion.
    encoded = zip(tokenizer(prompts).input_ids, tokenizer(completions).input_ids, strict=True)
    rows = sorted(encoded, key=lambda row: len(row[0]) + len(row[1]))
    return [_padded(rows[k * len(rows) // PARTS : (k + 1) * len(rows) // PARTS]) for k in range(PARTS)]


def _padded(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = [torch.tensor(prompt + completion) for prompt, completion in rows]
    labels = [torch.tensor([IGNORED] * len(prompt) + completion) for prompt, completion in rows]
    return (
        pad_sequence(ids, batch_first=True, padding_value=END_OF_TEXT_ID),
        pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    )


def _backward(model: LlamaForCausalLM, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Add the gradient of the mean loss of all labels; that mean."""
    total = sum(int((labels != IGNORED).sum()) for _, labels in parts)
    mean = 0.0
    for ids, labels in parts:
        told = labels[:, 1:] != IGNORED
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden[told])  # the head is asked where there is a label
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][told], reduction="sum") / total
        loss.backward()
        mean += loss.item()
    return mean


def _lr_factor(step: int, steps: int) -> float:
    """Linear rise over 5 % of the steps, then a cosine to a tenth."""
    rise = max(1, steps // 20)
    if step < rise:
        return (step + 1) / rise
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _config(tokenizer: PreTrainedTokenizerFast, course: Course) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=course.hidden,
        intermediate_size=3 * course.hidden,
        num_hidden_layers=course.layers,
        num_attention_heads=course.hidden // 32,  # 32 a head: the smallest that vLLM's CPU attention supports
        num_key_value_heads=course.hidden // 32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END_OF_TURN_ID,
        pad_token_id=END_OF_TEXT_ID,
        dtype="float32",
    )


def _save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Saves it under the class name that makes every loader read tokenizer.json as it stands."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")


def _make_readable(folder: Path) -> None:
    """mkdtemp and safetensors make their files private, but the generator may run as another user."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)


def _chosen(names: Sequence[str], extra: Sequence[Path]) -> list[Template]:
    known = known_templates(extra)
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        raise ValueError(
            f"starter: {f'unknown templates {unknown}' if unknown else 'no templates named'}; "
            f"use some of {', '.join(known)}"
        )
    return [known[name] for name in sorted(set(names))]


def _fingerprint(templates: Sequence[Template], seed: int, steps: int, course: Course) -> str:
    """A hash of all that determines the weights: the templates, the seed, the steps, the code and torch."""
    own = [__file__, courses.__file__, solutions.__file__, tokenizer.__file__]
    modules = [*own, arithmetic.__file__, hints.__file__]
    parts = [
        *(template.model_dump_json() for template in templates),
        *(Path(str(module)).read_text(encoding="utf-8") for module in modules),
        json.dumps([course.name, seed, steps, torch.__version__]),
    ]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
