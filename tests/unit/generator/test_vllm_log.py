"""What is read from the log of a vLLM that did not start. The texts are vLLM 0.32's, shortened."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.generator.vllm_log import last_error

TRACE = """WARNING 11-22 22:25:29 [system_utils.py:255] It may mean `OSError: [Errno 24]`.
Traceback (most recent call last):
  File "vllm_process.py", line 196, in <module>
"""
BY_PYDANTIC = """pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (9999999) is greater than the derived max_model_len
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
BY_A_WORKER = """(Worker_TP1 pid=9) ERROR 11-22 22:25:40 [multiproc_executor.py:953] WorkerProc failed to start.
(Worker_TP1 pid=9) ERROR 11-22 22:25:40 [multiproc_executor.py:953] ValueError: Free memory is too little.
  File "multiproc_executor.py", line 215, in _init_executor
Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            TRACE + BY_PYDANTIC,
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig "
            "Value error, User-specified max_model_len (9999999) is greater than the derived max_model_len",
        ),
        (TRACE + BY_A_WORKER, "ValueError: Free memory is too little."),
        (
            "usage: vllm [-h]\nvllm: error: unrecognized arguments: --port",
            "vllm: error: unrecognized arguments: --port",
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
    log.write_text(BY_A_WORKER + "killed\n")
    assert last_error(log, len(BY_A_WORKER)) == ""
