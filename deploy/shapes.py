"""What a decoder's shape says of its size: parameters, and the bytes that its layers keep.

a folder's weights ─▶ its config.json ─▶ the table of published names ─▶ the hub's config.json ─▶ what the name says
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus.protocol.runtime.model_folder import tensors_of

_HUB_TIMEOUT_S = 3.0
_SIZE_IN_NAME = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([BbMm])(?![\w.])")


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama family. `biases`: of query, key and value; `normed`: query and key, by head."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    biases: bool = False
    normed: bool = False

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        query = self.heads * self.head_dim
        attention = self.hidden * (2 * query + 2 * self.kv_width)
        attention += (query + 2 * self.kv_width) * self.biases + 2 * self.head_dim * self.normed
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def root(self) -> int:
        """Parameters outside of the layers: the embedding, the head if it is not tied, the last norm."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        return self.layers * self.layer + self.root

    def kv_bytes(self, width: int, tensor_parallel: int = 1) -> float:
        """Bytes that one token takes in a generator GPU's KV cache; a head is never split."""
        return 2 * self.layers * max(1, self.kv_heads // tensor_parallel) * self.head_dim * width


@dataclass(frozen=True)
class Model:
    """How many parameters, how that is `known`, and the shape where there is one."""

    count: float
    known: str
    shape: Shape | None


def _qwen(layers: int, hidden: int, intermediate: int, heads: int, kv_heads: int, tied: bool) -> Shape:
    vocabulary = 151_936 if hidden < 3584 else 152_064
    head_dim = hidden // heads
    return Shape(layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary, tied, biases=True)


def _qwen3(layers: int, hidden: int, intermediate: int, heads: int, tied: bool) -> Shape:
    return Shape(layers, hidden, intermediate, heads, 8, 128, 151_936, tied, normed=True)


def _llama(layers: int, hidden: int, intermediate: int, heads: int, tied: bool) -> Shape:
    return Shape(layers, hidden, intermediate, heads, 8, hidden // heads, 128_256, tied)


# As the models' config.json has them. A name's first match counts.
_QWEN2 = r"(Qwen2(\.5)?(-Math|-Coder)?|OpenMath-Nemotron|R1-Distill-Qwen)-"
_PUBLISHED: tuple[tuple[str, Shape], ...] = (
    (r"R1-Distill-Qwen-1\.5B", _qwen(28, 1536, 8960, 12, 2, tied=False)),
    (_QWEN2 + r"0\.5B", _qwen(24, 896, 4864, 14, 2, tied=True)),
    (_QWEN2 + r"1\.5B", _qwen(28, 1536, 8960, 12, 2, tied=True)),
    (_QWEN2 + r"3B", _qwen(36, 2048, 11_008, 16, 2, tied=True)),
    (_QWEN2 + r"7B", _qwen(28, 3584, 18_944, 28, 4, tied=False)),
    (_QWEN2 + r"14B", _qwen(48, 5120, 13_824, 40, 8, tied=False)),
    (_QWEN2 + r"32B", _qwen(64, 5120, 27_648, 40, 8, tied=False)),
    (_QWEN2 + r"72B", _qwen(80, 8192, 29_568, 64, 8, tied=False)),
    (r"Qwen3-0\.6B", _qwen3(28, 1024, 3072, 16, tied=True)),
    (r"Qwen3-1\.7B", _qwen3(28, 2048, 6144, 16, tied=True)),
    (r"Qwen3-4B", _qwen3(36, 2560, 9728, 32, tied=True)),
    (r"Qwen3-8B", _qwen3(36, 4096, 12_288, 32, tied=False)),
    (r"Qwen3-14B", _qwen3(40, 5120, 17_408, 40, tied=False)),
    (r"Qwen3-32B", _qwen3(64, 5120, 25_600, 64, tied=False)),
    (r"Llama-3\.2-1B", _llama(16, 2048, 8192, 32, tied=True)),
    (r"Llama-3\.2-3B", _llama(28, 3072, 8192, 24, tied=True)),
    (r"Llama-3(\.1)?-8B|R1-Distill-Llama-8B", _llama(32, 4096, 14_336, 32, tied=False)),
    (r"Llama-3(\.[13])?-70B|R1-Distill-Llama-70B", _llama(80, 8192, 28_672, 64, tied=False)),
    (r"SmolLM2-135M", Shape(30, 576, 1536, 9, 3, 64, 49_152, tied=True)),
    (r"SmolLM2-360M", Shape(32, 960, 2560, 15, 5, 64, 49_152, tied=True)),
    (r"SmolLM2-1\.7B", Shape(24, 2048, 8192, 32, 32, 64, 49_152, tied=True)),
)


def model_of(path: str) -> Model | None:
    """Of a folder, a hub name or `smollm2`; None where nothing tells the size. Raises CannotGoOn for broken weights."""
    folder = Path(path)
    if folder.exists():
        shape = _read(folder / "config.json")
        if count := sum(math.prod(tensor) for _, tensor in tensors_of(folder)):
            return Model(count, "", shape)
        return Model(shape.parameters, " by its config.json", shape) if shape else None
    if shape := _published("SmolLM2-135M" if path == "smollm2" else path):
        return Model(shape.parameters, " by its published shape", shape)
    if "/" in path and (shape := _on_the_hub(path)):
        return Model(shape.parameters, " by the hub's config.json", shape)
    if said := _SIZE_IN_NAME.search(path.replace("-", " ").replace("/", " ")):
        return Model(float(said[1]) * (1e9 if said[2] in "Bb" else 1e6), " by its name", None)
    return None


def _published(name: str) -> Shape | None:
    return next((shape for known, shape in _PUBLISHED if re.search(rf"({known})(?![\w.])", name)), None)


def _read(file: Path) -> Shape | None:
    try:
        return shape_of(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def shape_of(told: dict[str, Any]) -> Shape | None:
    """By a config.json; None for what is no decoder of the Llama family."""
    told = {**told, **(told.get("text_config") or {})}
    if any("expert" in key for key in told):
        return None
    try:
        layers, hidden, intermediate, heads, vocabulary = (
            int(told[key])
            for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
        )
        kind = str(told.get("model_type", ""))
        # What an architecture takes for granted, transformers leaves out of the file.
        tied = bool(told.get("tie_word_embeddings", kind == "gemma3"))
        return Shape(
            *(layers, hidden, intermediate, heads, int(told.get("num_key_value_heads") or heads)),
            *(int(told.get("head_dim") or hidden // heads), vocabulary, tied),
            biases=bool(told.get("attention_bias", kind == "qwen2")),
            normed=kind.startswith("qwen3"),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _on_the_hub(name: str) -> Shape | None:
    """A file of a kilobyte, or nothing within some seconds: a dry run waits for nobody."""
    try:
        from huggingface_hub import constants, try_to_load_from_cache
        from huggingface_hub.utils import build_hf_headers

        here = try_to_load_from_cache(name, "config.json")
        if isinstance(here, str):
            return _read(Path(here))
        if constants.HF_HUB_OFFLINE:
            return None
        import httpx

        address = f"{constants.ENDPOINT}/{name}/resolve/main/config.json"
        answer = httpx.get(address, headers=build_hf_headers(), timeout=_HUB_TIMEOUT_S, follow_redirects=True)
        return shape_of(answer.raise_for_status().json())
    except Exception:  # a hub client raises what it likes; without the file the name says what it says
        return None
