"""docs/reproduce.md, typed from its first command to its last, with stand-ins for what is large.

Real are the commands, the run's processes but for its engines, and the server that answers at the end.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from evaluating import Recited
from freeport import free_port
from liverun import ROOT
from publisher import Publisher, publishing
from scriptedlive import SUPPORT, environment
from tinymodel import save_tiny_model

from chorus.cli.main import main
from chorus.evaluation.suite import load_suite
from chorus.problems.rendering import load_tokenizer
from chorus.protocol.run_folder.files import read_json
from chorus.protocol.templates.load import load_templates
from chorus.protocol.templates.template import render_chatml

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
USE = (ROOT / "docs" / "use_the_model.md").read_text(encoding="utf-8")
MODEL = "models/Qwen2.5-Math-1.5B"
SMALL = {  # what makes a recipe one for two cores: two steps, a checkpoint each, short answers
    "model.path": MODEL, "model.dtype": "float32", "model.context": 400, "problems.max_prompt_tokens": 300,
    "sampling.max_tokens": 16, "sampling.group_size": 2, "run.steps": 2, "learner.groups_per_step": 4,
    "learner.updates_per_step": 2, "learner.checkpoint_every": 1, "learner.keep_checkpoints": 1,
    "evaluation.problems": 1, "evaluation.validation_problems": 1, "evaluation.every": 1,
}  # fmt: skip
SETS = " ".join(f"--set {key}={value}" for key, value in SMALL.items())
SERVER = f"{sys.executable} -m vllm.entrypoints.openai.api_server --dtype float32 --enforce-eager --max-model-len 400"
STAND_INS = [  # pattern in a command, what is typed in its place
    (r"^make install-gpu$|^source .*|^chorus check$", ""),  # installed is what runs this test; the check has its own
    (r"^chorus fetch math$", "chorus fetch small.toml --to data/math"),
    (r"Qwen/Qwen2\.5-Math-1\.5B", MODEL),
    (r"^chorus run (\S+)$", rf"{sys.executable} {SUPPORT / 'scripted_run.py'} \1 {SETS}"),
    (r"^vllm serve (\S+)", rf"{SERVER} --port PORT --model \1"),
    (r":8000/", ":PORT/"),
    (r"step-003960", "step-000002"),
    (r'"max_tokens": 3000', '"max_tokens": 4'),
]
ENDS_WITH = {"chorus check-data": 1}  # it finds what two sets share


def commands() -> list[str]:
    """What the page tells to type, in order."""
    return [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


class Typist:
    """Types a command of the page, its stand-ins in place."""

    def __init__(self, port: int, capsys: pytest.CaptureFixture[str]) -> None:
        self._port, self._capsys = port, capsys
        self.variables: dict[str, str] = {}
        self.servers: list[subprocess.Popen[bytes]] = []
        self.said: dict[str, str] = {}

    def type(self, command: str) -> None:
        typed = command
        for pattern, stand_in in STAND_INS:
            typed = re.sub(pattern, stand_in, typed)
        typed = typed.replace("PORT", str(self._port))
        for name, value in self.variables.items():
            typed = typed.replace(f"${name}", value)
        if found := re.fullmatch(r"([A-Z]+)=(.*)", typed):
            told = subprocess.run(["bash", "-c", f"echo {found[2]}"], capture_output=True, text=True, check=True)
            self.variables[found[1]] = told.stdout.strip()
        elif typed:
            self.said[command] = self._carry_out(shlex.split(typed), ENDS_WITH.get(" ".join(command.split()[:2]), 0))

    def _carry_out(self, argv: list[str], status: int) -> str:
        argv, to = (argv[:-2], argv[-1]) if argv[-2:-1] == [">"] else (argv, "")
        if argv[0] == "chorus":
            self._capsys.readouterr()
            assert main(argv[1:]) == status, (argv, self._capsys.readouterr().err)
            text = self._capsys.readouterr().out
        elif argv[0] == "curl":
            text = self._post(next(word for word in argv if word.startswith("http")), argv[argv.index("-d") + 1])
        elif "vllm.entrypoints.openai.api_server" in argv:
            return self._serve(argv)
        else:
            done = subprocess.run(argv, capture_output=True, text=True, env=environment(0.05), timeout=120, check=False)
            assert done.returncode == status, (argv, done.stdout[-3000:], done.stderr[-3000:])
            text = done.stdout
        if to:
            Path(to).write_text(text)
        return text

    def _serve(self, argv: list[str]) -> str:
        env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        env |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        with Path("server.log").open("wb") as log:
            self.servers.append(subprocess.Popen(argv, stdout=log, stderr=log, env=env, start_new_session=True))
        return ""

    def _post(self, url: str, body: str) -> str:
        """As curl does, once the server is up."""
        (server,) = self.servers
        end = time.monotonic() + 150
        while time.monotonic() < end and server.poll() is None:
            try:
                return httpx.post(url, json=json.loads(body), timeout=60).raise_for_status().text
            except httpx.TransportError:
                time.sleep(0.2)
        raise AssertionError(Path("server.log").read_text(errors="replace")[-3000:])

    def stop(self) -> None:
        for server in self.servers:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@contextmanager
def published(folder: Path) -> Iterator[Publisher]:
    """Sets of a few sums under the names of the real ones, and small.toml, which knows where they are."""
    sums = [f"What is {a} + {3 * a} - 2?" for a in range(1, 41)]
    rows = [{"problem": text, "answer": str(4 * a - 2), "level": 3} for a, text in enumerate(sums, 1)]
    names = [benchmark.file.removesuffix(".jsonl.gz") for benchmark in load_suite("math").benchmark]
    parts = {"math12000": rows, "train_math_level3to5": rows[:12]}
    parts |= {name: rows[12 + 2 * k : 14 + 2 * k] for k, name in enumerate(names)}
    parts["eval_math500"] = [*parts["eval_math500"], rows[0]]  # which is trained on
    files = {f"{name}.jsonl": "".join(json.dumps(row) + "\n" for row in part).encode() for name, part in parts.items()}
    with publishing(Publisher(files)) as publisher:
        sets = [
            f'[[set]]\nname = "{name}"\ntitle = "t"\nlicence = "CC0"\nkept = {str(name != "math12000").lower()}\n'
            f'[[set.mirror]]\nurl = "{publisher.url}/{name}.jsonl"\n'
            for name in parts
        ]
        rest = '[[set]]\nname = "validation_math"\ntitle = "t"\nlicence = "CC0"\n[set.rest]\nof = "math12000"\n'
        rest += f"rows = 3\nlevel = 3\nwithout = {json.dumps(['train_math_level3to5', *names])}\n"
        (folder / "small.toml").write_text("\n".join(['title = "small"', *sets, rest]))
        yield publisher


class Reciter:
    """Stands in for vLLM under `chorus eval`: says the same to everything."""

    def __init__(self, model: str) -> None:
        tokenizer = load_tokenizer(model)
        self._answer = Recited(tokenizer.encode(r"so \boxed{50}", add_special_tokens=False))

    async def generate(self, prompt: list[int], n: int, *_: Any, **__: Any) -> list[Recited]:
        return [self._answer] * n


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Typist]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    save_tiny_model(tmp_path / MODEL, hidden_size=64, templates=sorted(load_templates()))

    @asynccontextmanager
    async def started(*_: Any) -> AsyncIterator[Reciter]:
        yield Reciter(MODEL)

    monkeypatch.setattr("chorus.cli.evaluate.eval.started_vllm", started)
    typist = Typist(free_port(), capsys)
    with published(tmp_path):
        yield typist
    typist.stop()


@pytest.mark.usefixtures("inline_graders")
def test_every_command_of_the_page_works_in_its_order(walk: Typist, tmp_path: Path) -> None:
    for command in commands():
        walk.type(command)
    run = Path(walk.variables["RUN"])
    assert sorted(path.name for path in run.glob("checkpoints/*/huggingface/config.json")) == ["config.json"] * 2
    assert {read_json(path)["step"] for path in run.glob("checkpoints/*/manifest.json")} == {1, 2}
    scored = [read_json(path)["spec"]["step"] for path in run.glob("evals/math-greedy-5-step-*/summary.json")]
    assert sorted(scored) == [1, 2]

    text = Path("runs/report/report.md").read_text()
    assert r"DAPO + prompt augmentation, step 2720 † | published | 23.3" in text
    assert re.search(r"\| models/Qwen2.5-Math-1.5B \| - \| ", text)
    assert re.search(rf"\| {re.escape(run.name)} \| step 2: last", text)
    assert "AIME24 has 2 problems: one is 50.0 points" in text
    assert "## Checkpoints on math" in text
    assert (run / "hub" / "me--qwen2.5-math-1.5b-augmented" / "README.md").is_file()

    answered = json.loads(next(said for command, said in walk.said.items() if command.startswith("curl")))
    prompt = render_chatml(load_templates()["qwen-math"], "What is 3 + 4?")
    ids = load_tokenizer(str(run / "checkpoints/step-000002/huggingface")).encode(prompt, add_special_tokens=False)
    assert answered["usage"]["prompt_tokens"] == len(ids), "the prompt that was trained under, to the letter"
    assert answered["choices"][0]["message"]["role"] == "assistant"

    [script] = re.findall(r"```python\n(.*?)```", USE, re.DOTALL)
    export = str(run / "checkpoints/step-000002/huggingface")
    for large, small in (("EXPORT", export), ("bfloat16", "float32"), ("=3000", "=4")):
        assert large in script
        script = script.replace(large, small)
    exec(script, {})


def test_the_page_and_its_table_of_rows_name_what_there_is() -> None:
    named = re.findall(r"`(qwen2\.5-math-1\.5b\S*\.toml)`", PAGE)
    assert len(named) == 6
    assert all((ROOT / "recipes" / name).is_file() for name in named)
    assert all(any(re.search(pattern, command) for command in commands()) for pattern, _ in STAND_INS)
