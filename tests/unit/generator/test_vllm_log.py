"""What is read from a vLLM log whose server did not start. The texts are vLLM 0.32's, shortened."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.generator.vllm_log import last_error

TRACE = """(APIServer pid=7) WARNING 11-22 22:25:29 [system_utils.py:255] It may mean `OSError: [Errno 24]`.
Traceback (most recent call last):
  File "api_server.py", line 59, in <module>
"""
BY_PYDANTIC = """pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (9999999) is greater than the derived max_model_len
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
BY_THE_ENGINE = """(EngineCore pid=9) ERROR 11-22 22:25:40 [core.py:1001] ValueError: Free memory is too little.
(EngineCore pid=9) ValueError: Free memory is too little.
(APIServer pid=7)   File "core_client.py", line 101, in __init__
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            TRACE + BY_PYDANTIC,
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig "
            "Value error, User-specified max_model_len (9999999) is greater than the derived max_model_len",
        ),
        (TRACE + BY_THE_ENGINE, "ValueError: Free memory is too little."),
        (
            "usage: api_server.py [-h]\napi_server.py: error: argument --x: invalid",
            "api_server.py: error: argument --x: invalid",
        ),
        ("x" * 100_000 + "\nRuntimeError: " + "y" * 1000, "RuntimeError: " + "y" * 386),
        (TRACE, ""),
        ("", ""),
    ],
)
def test_the_last_error_that_means_something(text: str, said: str, tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text(text)
    assert last_error(log) == said


def test_an_earlier_start_s_error_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text(BY_THE_ENGINE + "killed\n")
    assert last_error(log, len(BY_THE_ENGINE)) == ""
