"""What the viewer serves: filters as bound parameters over a run's own parts, to whom it should."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from viewedrun import HOSTILE, TEXTS, evaluate, viewed_run, write

from chorus.protocol.run_folder.folder import RunFolder
from chorus.protocol.templates.template import Template
from chorus.viewer.app import create_app
from chorus.viewer.groups import Words, _prompt


def client(app: Any, base: str = "http://127.0.0.1:8200") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=base)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return viewed_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture
async def ask(run: RunFolder) -> AsyncIterator[Any]:
    async with client(create_app([run])) as http:

        async def get(path: str, **query: Any) -> Any:
            answer = await http.get(f"/api/{path}", params=query)
            assert answer.status_code == 200, answer.text
            return answer.json()

        yield get


# Of 24 samples: steps 1 to 6, of each two of p0 under abel and two of p1 under formal.
@pytest.mark.parametrize(
    ("filters", "total"),
    [
        ({}, 24),
        ({"step": "5"}, 4),
        ({"step": "2:3"}, 8),
        ({"step": "2,4:5"}, 12),
        ({"step": ":2"}, 8),
        ({"template": "abel"}, 12),
        ({"template": ["abel", "formal"]}, 24),
        ({"verdict": "no_answer"}, 4),
        ({"problem": "p1", "step": "6:"}, 2),
        ({"staleness": "1:"}, 6),  # of p1: steps 4, 5 and 6 with weights of step 1
        ({"staleness": "4"}, 2),
        ({"format": ":0.999"}, 4 + 12),
        ({"q": "WITHOUT box"}, 4),
        ({"q": "without seven boxed"}, 0),
        ({"level": "2"}, 24),
        ({"level": "3"}, 0),
        ({"truncated": "true"}, 0),
        ({"length": "3"}, 6),
        ({"template": "x' OR '1'='1"}, 0),
        ({"q": "';DROP"}, 6),
    ],
)
async def test_filters_let_through_what_they_say(ask: Any, filters: dict[str, Any], total: int) -> None:
    page = await ask("rollouts", **filters)
    assert (page["total"], len(page["rollouts"])) == (total, total)
    assert page["damaged"] == {}


async def test_answers_are_sorted_and_come_in_pages(ask: Any) -> None:
    page = await ask("rollouts", sort="-reward", limit=3)
    assert [row["reward"] for row in page["rollouts"]] == [2.0, 2.0, 2.0]
    assert page["total"] == 24
    every = await ask("rollouts", sort="staleness")
    assert [row["staleness"] for row in every["rollouts"]] == sorted(row["staleness"] for row in every["rollouts"])
    pages = [await ask("rollouts", limit=10, offset=at) for at in (0, 10, 20)]
    keys = [(row["step"], row["group"], row["sample"]) for page in pages for row in page["rollouts"]]
    assert keys == sorted(set(keys), key=lambda key: (-key[0], key[1], key[2]))
    assert len(keys) == 24


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"sort": "reward; DROP TABLE rollouts"}, "sort"),
        ({"step": "five"}, "five"),
        ({"step": "nan"}, "nan"),
        ({"truncated": "perhaps"}, "neither true nor false"),
    ],
)
async def test_what_can_not_be_understood_is_said(run: RunFolder, query: dict[str, str], word: str) -> None:
    async with client(create_app([run])) as http:
        answer = await http.get("/api/rollouts", params=query)
    assert answer.status_code == 422
    assert word in answer.json()["detail"]


async def test_the_arrays_come_when_they_are_asked_for(ask: Any) -> None:
    asked = {"step": 1, "problem": "p0", "limit": 1}
    assert "token_ids" not in (await ask("rollouts", **asked))["rollouts"][0]
    [row] = (await ask("rollouts", **asked, columns="token_ids,logprobs,versions"))["rollouts"]
    assert (row["token_ids"], row["logprobs"]) == ([100, 1], [-0.5, -0.5])
    assert row["versions"] == [{"fence": 1, "step": 0, "tokens": 2}]


async def test_a_breakdown_says_which_template_fails_its_format(ask: Any) -> None:
    rows = {row["name"]: row for row in (await ask("breakdown", by="template"))["rows"]}
    assert rows["formal"]["format_failed"] == 1.0
    assert rows["abel"]["format_failed"] == pytest.approx(4 / 12)
    assert rows["abel"]["no_answer"] == pytest.approx(4 / 12)


async def test_a_group_shows_tokens_grades_and_where_it_has_been(ask: Any) -> None:
    one = await ask("group", step=4, group=41)
    assert (one["problem_id"], one["template"], one["gold"]) == ("p1", "formal", ["7"])
    wrong, evil = one["samples"]
    assert (wrong["text"], evil["text"]) == (TEXTS[2], HOSTILE)
    assert (wrong["advantage"], evil["advantage"]) == (0.5, -0.5)
    assert (wrong["version_steps"], wrong["staleness"]) == ([1, 1, 1], 2)
    assert wrong["pieces"] == ["⟨102⟩", "⟨1⟩", "⟨2⟩"], "no tokenizer, so their numbers"
    assert [event["at"] for event in one["timeline"]][-2:] == [1004.0, 2004.0]


async def test_a_problem_is_followed_over_the_steps_to_its_first_right_answer(ask: Any) -> None:
    one = await ask("problem", id="p0")
    assert [row["step"] for row in one["groups"]] == [1, 2, 3, 4, 5, 6]
    assert [row["pass_rate"] for row in one["groups"]] == [0.5] * 4 + [1.0] * 2
    assert one["first_right"]["step"] == 1
    assert (await ask("problem", id="p1"))["first_right"] is None


async def test_each_figure_of_an_evaluation_has_an_interval_and_its_answers(tmp_path: Path) -> None:
    run = viewed_run(tmp_path / "run", steps=0)
    for name, step in (("before", 0), ("after", 6)):
        evaluate(run, name, step)
    async with client(create_app([run])) as http:
        before, after = (await http.get("/api/evaluations")).json()["heldout"]
        cells = {(cell["by"], cell["name"]): cell for cell in before["cells"]}
        asked = {"of": "before", "level": "1", "greedy": "false"}
        rows = (await http.get("/api/rollouts", params=asked)).json()["rollouts"]
        compared = (await http.get("/api/compare", params={"a_of": "before", "b_of": "after"})).json()
        group = (await http.get("/api/group", params={"of": "before", "step": 0, "group": 1000})).json()
        for of in ("../before", "step-000004"):
            assert (await http.get("/api/rollouts", params={"of": of})).status_code == 404
    # p0, of level 1: one of two right, the greedy one right; p1, of level 2: none
    assert cells["level", "1"]["sampled"] == {"accuracy": 0.5, "interval": [0.5, 0.5]}
    assert cells["level", "2"]["greedy"]["accuracy"] == 0.0
    assert (cells["", ""]["problems"], cells["", ""]["sampled"]["accuracy"]) == (2, 0.25)
    assert cells["", ""]["sampled"]["interval"] == [0.0, 0.5]
    assert cells["", ""]["greedy"]["accuracy"] == 0.5
    assert (before["accuracy"], after["answers"]) == (0.25, True)
    assert [(row["problem_id"], row["text"]) for row in rows] == [("p0", TEXTS[0]), ("p0", TEXTS[1])]
    assert (compared["gained"], compared["lost"]) == (1, 0)
    assert group["timeline"][-1]["what"] == "counted it in evaluation before"


async def test_the_answers_behind_a_cell_of_a_suite_come_in_pages(tmp_path: Path) -> None:
    run = viewed_run(tmp_path / "run", steps=0)
    folder = run.evaluations / "math-greedy"
    folder.mkdir(parents=True)
    with (folder / "answers.jsonl").open("w") as file:
        for k in range(6):
            samples = [{"verdict": "correct" if k < 3 else "wrong", "text": f"text {k}"}]
            line = {"benchmark": "math500", "id": f"m{k}", "run": 0, "level": k % 2, "subject": None}
            file.write(json.dumps(line | {"samples": samples}) + "\n")
    async with client(create_app([run])) as http:

        async def ask(**asked: Any) -> tuple[list[str], int]:
            asked |= {"suite": "math-greedy", "benchmark": "math500"}
            told = (await http.get("/api/answers", params=asked)).json()
            return [answer["text"] for answer in told["answers"]], told["total"]

        assert await ask(limit=2, offset=4) == (["text 4", "text 5"], 6)
        assert await ask(level="0") == (["text 0", "text 2", "text 4"], 3)
        assert await ask(level="1", verdict="wrong") == (["text 3", "text 5"], 2)


def test_a_prompt_shows_what_is_special_a_hint_and_begun() -> None:
    class Letters(Words):
        def __init__(self) -> None:
            self.special = {0}
            self.templates = {
                "t": Template(name="t", category="deepseek", system="s", prefill="<think>", answer_place="")
            }

        def pieces(self, ids: Sequence[int]) -> list[str]:
            return [PIECES[id] for id in ids]

    PIECES = ["<|im_end|>", "What is 3 + 4?", "\n\n## Hi", "nt.3 and ", "4", "assistant\n", "<think>", "3 and"]
    row = {"prompt_ids": [1, 2, 3, 4, 0, 5, 6], "template": "t", "hint_ratio": 0.5}
    marks = [piece["mark"] for piece in _prompt(Letters(), row)]
    assert marks == ["", "hint", "hint", "hint", "special", "", "prefill"]
    row = {"prompt_ids": [1, 0, 5, 6, 7], "template": "t", "hint_ratio": 0.5}
    assert [piece["mark"] for piece in _prompt(Letters(), row)] == ["", "special", "", "prefill", "hint"]


async def test_two_ranges_of_steps_are_compared_on_the_same_problems(ask: Any) -> None:
    found = await ask("compare", a_step="1:4", b_step="5:6")
    assert (found["shared"], found["gained"], found["lost"]) == (2, 1, 0)
    assert (found["problems"][0]["problem_id"], found["problems"][0]["gain"]) == ("p0", 0.5)


async def test_what_is_shown_can_be_taken_along(run: RunFolder, tmp_path: Path) -> None:
    async with client(create_app([run])) as http:
        asked = {"step": "2", "template": "formal"}
        lines = (await http.get("/api/export", params=asked | {"file": "jsonl"})).text.splitlines()
        parquet = (await http.get("/api/export", params=asked | {"file": "parquet"})).content
    assert [json.loads(line)["text"] for line in lines] == [TEXTS[2], HOSTILE]
    (tmp_path / "taken.parquet").write_bytes(parquet)
    taken, whole = pq.read_table(tmp_path / "taken.parquet"), pq.read_table(run.rollouts)
    assert (taken.num_rows, taken.schema.names) == (2, whole.schema.names)


async def test_the_overview_tells_what_happened_and_what_is_new(ask: Any) -> None:
    whole = await ask("overview")
    assert [record["step"] for record in whole["records"]] == [1, 2, 3, 4, 5, 6]
    assert [(mark["step"], mark["kind"]) for mark in whole["marks"]] == [(2, "alarm"), (3, "stage")]
    assert [record["step"] for record in (await ask("overview", since=4))["records"]] == [5, 6]


async def test_a_run_that_is_being_written_shows_each_step_when_it_is_whole(tmp_path: Path) -> None:
    run = viewed_run(tmp_path / "live", steps=0)
    async with client(create_app([run])) as http:
        for step in range(4):
            if step:
                write(run, step)
            (run.rollouts.mkdir(exist_ok=True) or run.rollouts / "_step-000009.parquet.partial").write_bytes(b"half")
            answer = (await http.get("/api/rollouts")).json()
            assert (answer["total"], answer["damaged"]) == (4 * step, {})


@pytest.mark.parametrize("at", [3, -5], ids=["body", "footer"])
async def test_a_damaged_part_is_named_and_the_others_are_shown(tmp_path: Path, at: int) -> None:
    run = viewed_run(tmp_path / "run", steps=3)
    path = run.rollouts / "step-000002.parquet"
    data = bytearray(path.read_bytes())
    places = range(len(data) // 8, len(data) // 2) if at > 0 else [len(data) + at]
    for place in places:
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))
    async with client(create_app([run])) as http:
        answer = (await http.get("/api/rollouts")).json()
    assert list(answer["damaged"]) == ["step-000002.parquet"]
    assert sorted({row["step"] for row in answer["rollouts"]}) == [1, 3]
    assert answer["total"] == 8


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8200", "127.0.0.1.evil.example", ""])
async def test_a_name_that_is_not_the_viewers_own_is_refused(run: RunFolder, host: str) -> None:
    async with client(create_app([run])) as http:
        for path in ("/", "/api/rollouts"):
            assert (await http.get(path, headers={"Host": host})).status_code == 421
        assert (await http.get("/api/rollouts", headers={"Host": "localhost:8200"})).status_code == 200


async def test_where_there_is_a_token_the_answers_ask_for_it_and_the_page_does_not(run: RunFolder) -> None:
    async with client(create_app([run], token="secret", hosts=("*",)), "http://runs.example") as http:
        assert (await http.get("/")).status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            assert (await http.get("/api/runs", headers=headers)).status_code == 401
        assert (await http.get("/api/runs", headers={"Authorization": "Bearer secret"})).status_code == 200


async def test_a_run_that_is_not_shown_is_not_found_whatever_its_name(run: RunFolder) -> None:
    async with client(create_app([run])) as http:
        for name in ("other", "../demo", "/etc"):
            assert (await http.get("/api/rollouts", params={"run": name})).status_code == 404


async def test_a_sample_is_judged_again_by_what_is_stored(run: RunFolder) -> None:
    seen: list[dict[str, Any]] = []

    @asynccontextmanager
    async def judging() -> AsyncIterator[Any]:
        async def judge(run: RunFolder, sample: dict[str, Any]) -> dict[str, Any]:
            seen.append(sample)
            return {"verdict": "correct"}

        yield judge

    app = create_app([run], judging)
    async with app.router.lifespan_context(app), client(app) as http:
        asked = {"run": "demo", "step": 1, "group": 11, "sample": 0}
        answer = (await http.post("/api/judge", json=asked)).json()
        assert (await http.post("/api/judge", json=asked | {"sample": 9})).status_code == 404
    assert (answer["then"]["verdict"], answer["now"]["verdict"]) == ("wrong", "correct")
    assert (seen[0]["text"], seen[0]["gold"], seen[0]["template"]) == (TEXTS[2], ["7"], "formal")
