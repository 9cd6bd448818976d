"""The viewer's pages in a headless Chromium: each page, its links and filters, live updates, hostile texts."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from browser import PATIENCE_S, Browser, Page, chromium
from viewedrun import HOSTILE, TEXTS, evaluate, viewed_run, write

from chorus.benchmarks.rollouts import synthetic_run
from chorus.deploy.launcher import _serve_page
from chorus.protocol.run_folder.hold import held
from chorus.viewer.app import create_app

pytestmark = pytest.mark.skipif(
    chromium() is None,
    reason="no Chromium here: install chromium-headless-shell or chromium, or name one in CHORUS_CHROMIUM",
)


@contextmanager
def served(app: Any) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not server.started:
                assert time.monotonic() < deadline, "the viewer is not ready"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("runs")
    runs = [viewed_run(folder / "demo"), viewed_run(folder / "again", steps=3)]
    runs[0].validations.write_text(json.dumps({"step": 4, "accuracy": 0.25, "greedy": 0.5}))
    suite = runs[0].evaluations / "math-greedy"
    suite.mkdir(parents=True)
    level = {"problems": 1, "accuracy": 0.0, "interval": [0.0, 0.0]}
    cell = {"title": "MATH", "accuracy": 0.5, "interval": [0.25, 0.75], "by_level": {"5": level}}
    (suite / "summary.json").write_text(json.dumps({"benchmarks": {"math500": cell}}))
    sample = {"verdict": "wrong", "text": HOSTILE, "tokens": 3}
    answer = {"benchmark": "math500", "id": "m1", "run": 0, "level": 5, "samples": [sample]}
    easy = answer | {"id": "m2", "level": 1, "samples": [sample | {"verdict": "correct", "text": "easy"}]}
    (suite / "answers.jsonl").write_text(json.dumps(answer) + "\n" + json.dumps(easy) + "\n")
    for name, step in (("before", 0), ("after", 6)):
        evaluate(runs[0], name, step)
    with served(create_app(runs)) as url:
        yield url


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    page = browser.open(f"{url}/")
    page.until("document.querySelectorAll('canvas').length > 5")
    yield page
    assert page.evaluate("window.pwned") is None, "no text of an answer ever runs"
    assert page.complaints() == []
    assert all(request.startswith((f"{url}/", "blob:")) for request in page.requests)


def texts(page: Page, selector: str) -> list[str]:
    return page.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)")


def click(page: Page, text: str, within: str = "body") -> None:
    """Click the link or button with this text."""
    found = f"[...document.querySelectorAll({json.dumps(within + ' a, ' + within + ' button')})]"
    page.until(f"{found}.some(e => e.textContent.trim() === {json.dumps(text)})")
    page.evaluate(f"{found}.find(e => e.textContent.trim() === {json.dumps(text)}).click()")


def answers(page: Page, count: int) -> list[str]:
    page.until(f"document.querySelectorAll('#answers tbody tr').length === {count}")
    return texts(page, "#answers tbody td.text")


def test_the_overview_draws_curves_and_says_what_happened(page: Page) -> None:
    assert page.until("document.querySelector('canvas[data-curve=reward]').getAttribute('aria-label')").startswith(
        "Reward. demo: last 0.6"
    )
    assert "Step 6 of 6" in page.text("main")
    assert any("alarm: entropy is low" in text for text in texts(page, ".timeline li"))
    page.evaluate("[...document.querySelectorAll('input[name=by]')][1].click()")
    page.until("/abel.*formal/.test(document.querySelector('canvas[data-curve=accuracy]').getAttribute('aria-label'))")
    page.evaluate("document.querySelector('.choice input[type=checkbox]').click()")
    page.until("location.search.includes('with=again')")


def test_four_questions_are_answered_within_two_clicks_of_the_first_page(page: Page, url: str) -> None:
    def from_the_start() -> None:
        page.go(f"{url}/?run=demo")
        page.until("document.querySelectorAll('canvas').length > 5")
        click(page, "Rollouts", "nav")
        answers(page, 24)

    # Which template fails the format most, and how does such an answer look? Its row says 100 %.
    from_the_start()
    assert "100.0%" in texts(page, "details tbody tr")[0] or "100.0%" in texts(page, "details tbody tr")[1]
    click(page, "100.0%", "details")
    assert HOSTILE in answers(page, 12), "and it is shown as it is"
    assert "template=formal" in page.evaluate("location.search")
    assert "format=%3A0.999" in page.evaluate("location.search")
    # What did the policy write for a problem early and late?
    from_the_start()
    click(page, "p0", "#answers")
    page.until("document.querySelectorAll('main tbody tr').length === 6")
    rows = dict(zip(texts(page, "main tbody td:first-child"), texts(page, "main tbody td.text"), strict=True))
    assert (rows["1"], rows["6"]) == (TEXTS[0], TEXTS[0])
    # Which answers were refused for want of a box?
    from_the_start()
    click(page, "No answer found", "#filters")
    assert answers(page, 4) == [TEXTS[1]] * 4
    # What was sampled with old weights?
    from_the_start()
    click(page, "Old weights", "#filters")
    answers(page, 6)
    assert texts(page, "#answers tbody tr td:nth-child(7)") == ["4", "4", "3", "3", "2", "2"]


def test_the_held_out_answers_before_and_after_stand_behind_their_figures(page: Page, url: str) -> None:
    page.go(f"{url}/?page=evaluations&run=demo")
    click(page, "50.0% (50.0% to 50.0%)", "main")  # level 1, sampled, before
    assert answers(page, 2) == [TEXTS[0], TEXTS[1]]
    assert "of=before" in page.evaluate("location.search")
    assert "Answers of evaluation before" in page.text("#filters")
    click(page, "0", "#answers")
    page.until("document.querySelectorAll('.samples article').length === 2")
    assert "counted it in evaluation before" in page.text(".timeline")
    page.go(f"{url}/?page=evaluations&run=demo")
    click(page, "Who gained, who lost", "main")
    page.until("document.querySelector('main').textContent.includes('1 gained, 0 lost')")


def test_filters_make_links_that_open_the_same(page: Page, browser: Browser, url: str) -> None:
    page.go(f"{url}/?page=rollouts&run=demo")
    answers(page, 24)
    page.type("#q", "without box")
    assert answers(page, 4) == [TEXTS[1]] * 4
    assert page.evaluate("document.activeElement.id") == "q", "who types keeps the field"
    address = page.evaluate("location.href")
    other = browser.open(address, width=390, height=800, dark=True)
    assert answers(other, 4) == [TEXTS[1]] * 4
    assert other.evaluate("document.getElementById('q').value") == "without box"
    assert other.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it fits a phone"


def test_a_problem_at_two_steps_and_a_group_token_by_token(page: Page, url: str) -> None:
    page.go(f"{url}/?page=rollouts&run=demo")
    answers(page, 24)
    click(page, "p0", "#answers")
    page.until("document.querySelectorAll('main tbody tr').length === 6")
    assert texts(page, "main tbody td.text") == [TEXTS[0]] * 6
    click(page, "5", "main table")
    page.until("document.querySelectorAll('.samples article').length === 2")
    assert texts(page, ".samples article:first-child pre span") == ["⟨100⟩", "⟨5⟩"]
    assert page.evaluate("document.querySelector('.samples pre span').style.backgroundColor") != ""
    assert "weights of step 4" in page.evaluate("document.querySelector('.samples pre span').title")
    assert any("trained step 5" in text for text in texts(page, ".timeline li"))


def test_two_ranges_of_steps_are_compared_and_suites_have_answers_behind_them(page: Page, url: str) -> None:
    page.go(f"{url}/?page=compare&run=demo&a_step=1:4&b_step=5:6")
    page.until("document.querySelectorAll('main tbody tr').length === 2")
    assert "+50.0%" in page.text("main tbody tr")
    page.go(f"{url}/?page=evaluations&run=demo")
    page.until("document.querySelector('main').textContent.includes('50.0% (25.0% to 75.0%)')")
    click(page, "level 5", "main")
    page.until("[...document.querySelectorAll('td.text')].some(e => e.textContent.includes('DROP TABLE'))")
    assert "easy" not in page.text("main"), "of that level alone"


def test_the_keyboard_walks_through_the_answers(page: Page, url: str) -> None:
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: '2', bubbles: true}))")
    answers(page, 24)
    for _ in range(2):
        page.evaluate("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'j', bubbles: true}))")
    assert page.evaluate("[...document.querySelectorAll('[data-row]')].indexOf(document.activeElement)") == 1
    page.press("Enter")
    page.until("document.querySelectorAll('.samples article').length === 2")
    assert page.evaluate("document.querySelectorAll('.card.chosen').length") == 1


def test_a_run_that_trains_is_followed(browser: Browser, tmp_path: Path) -> None:
    run = viewed_run(tmp_path / "live", steps=1)
    with held(run.path), served(create_app([run])) as url:
        page = browser.open(f"{url}/")
        page.until("document.querySelector('main')?.textContent.includes('Step 1 of 6')")
        other = browser.open(f"{url}/?page=rollouts")
        answers(other, 4)
        write(run, 2)
        page.until("document.querySelector('main').textContent.includes('Step 2 of 6')")
        answers(other, 8)
        assert "running" in page.text("#standing")


@pytest.mark.slow
def test_a_hundred_thousand_answers_are_searched_and_sorted(browser: Browser, tmp_path: Path) -> None:
    run = synthetic_run(tmp_path / "run", 100_000)
    (run.path / "config.json").write_text("{}")
    with served(create_app([run])) as url:
        page = browser.open(f"{url}/?page=rollouts&sort=-staleness")
        answers(page, 50)
        assert "1 to 50 of 100,000" in page.text("#results")
        page.type("#q", "needle")
        assert set(answers(page, 7)) == {"a needle"}, "one in each of the parts"


def test_a_run_serves_its_page_when_it_is_asked_to(tmp_path: Path) -> None:
    run, said = viewed_run(tmp_path / "run", steps=1), list[str]()
    run.logs.mkdir()
    page = _serve_page(run, said.append)
    try:
        address = said[0].removeprefix("its page: ")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                assert httpx.get(f"{address}api/rollouts").json()["total"] == 4
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, (run.logs / "view.log").read_text()
                time.sleep(0.05)
    finally:
        page.kill()


def test_a_damaged_part_is_named_and_a_token_is_asked_for(browser: Browser, tmp_path: Path) -> None:
    run = viewed_run(tmp_path / "run", steps=2)
    (run.rollouts / "step-000001.parquet").write_bytes(b"PAR1 nothing of the kind PAR1")
    with served(create_app([run], token="secret")) as url:
        page = browser.open(f"{url}/?page=rollouts")
        page.until("document.getElementById('token') === document.activeElement")
        page.type("#token", "secret")
        page.press("Enter")
        answers(page, 4)
        assert "step-000001.parquet is left out" in page.text("#results .notice")
