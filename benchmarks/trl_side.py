"""TRL's GRPO trainer on the prompts it is given, timed step by step: the far side of benchmarks/peer.py.

A program for the environment of TRL, which holds nothing of this project:

    python trl_side.py '{"model": FOLDER, "prompts": FILE, "steps": 10, "warm_up": 2, ...}'

PROMPTS has a {"prompt", "answer"} a line. The answer is one line of JSON behind RESULT. TRL samples by transformers'
`generate`, its default: on CPUs its ways to vLLM ask for changes inside of TRL.
"""

import json
import sys
import time
from itertools import pairwise
from typing import Any

RESULT = "RESULT "


def main(asked: dict[str, Any]) -> dict[str, Any]:
    import torch
    import trl  # pyright: ignore[reportMissingImports]
    from datasets import Dataset  # pyright: ignore[reportMissingImports]
    from transformers import PreTrainedTokenizerFast, TrainerCallback

    with open(asked["prompts"], encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    # AutoTokenizer may take another class than the folder's own, and with it another way of splitting words.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(asked["model"], padding_side="left")
    ends: list[float] = []
    lengths: list[float] = []
    generating: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *about: Any, **more: Any) -> None:
            ends.append(time.perf_counter())

        def on_step_end(self, *about: Any, **more: Any) -> None:
            ends.append(time.perf_counter())

        def on_log(self, *about: Any, logs: dict[str, float] | None = None, **more: Any) -> None:
            if logs and "completions/mean_length" in logs:
                lengths.append(logs["completions/mean_length"])

    class Timed(trl.GRPOTrainer):
        def _generate_single_turn(self, *given: Any, **more: Any) -> Any:
            started = time.perf_counter()
            try:
                return super()._generate_single_turn(*given, **more)
            finally:
                generating.append(time.perf_counter() - started)

    trainer = Timed(
        model=asked["model"],
        args=trl.GRPOConfig(**_settings(asked)),
        reward_funcs=_right,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.train()
    first = asked["warm_up"]
    seconds = [end - begin for begin, end in pairwise(ends[first:])]
    samples = asked["groups"] * asked["group_size"] * len(seconds)
    return {
        "samples_per_s": samples / sum(seconds),
        "steps": len(seconds),
        "tokens": sum(lengths[first:]) / max(1, len(lengths[first:])),
        "generating": sum(generating[first:]) / sum(seconds),
        "trl": trl.__version__,
        "torch": torch.__version__,
    }


def _settings(asked: dict[str, Any]) -> dict[str, Any]:
    """One update a step on as many samples as ours, the same loss and the same sampling."""
    samples = asked["groups"] * asked["group_size"]
    at_once = min(asked["at_once"], samples)
    return {
        **{key: asked[key] for key in ("output_dir", "learning_rate", "temperature", "seed")},
        "max_steps": asked["warm_up"] + asked["steps"],
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": samples // at_once,
        "steps_per_generation": samples // at_once,
        "num_generations": asked["group_size"],
        "max_completion_length": asked["max_tokens"],
        "num_iterations": 1,
        "beta": 0.0,
        "loss_type": "dapo",
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "lr_scheduler_type": "constant",
        "model_init_kwargs": {"dtype": "float32"},
        **dict.fromkeys(("bf16", "fp16", "gradient_checkpointing"), False),
        **dict.fromkeys(("use_cpu", "disable_tqdm"), True),
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
    }


def _right(completions: list[str], answer: list[str], **more: Any) -> list[float]:
    """What is paid does not change the speed; 1 where the answer is among the words."""
    return [float(wanted in text.split()) for text, wanted in zip(completions, answer, strict=True)]


if __name__ == "__main__":
    print(RESULT + json.dumps(main(json.loads(sys.argv[1]))), flush=True)
