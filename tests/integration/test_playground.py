"""The playground in a headless Chromium, in front of a real reward server: what a person sees, hears and types."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from browser import PATIENCE_S, Browser, Page, chromium
from hostile import HANGS

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    chromium() is None,
    reason="no Chromium here: install chromium-headless-shell or chromium, or name one in CHORUS_CHROMIUM",
)


@contextmanager
def reward_server(*arguments: str, token: str = "") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    environment = os.environ | ({"CHORUS_REWARD_TOKEN": token} if token else {})
    process = subprocess.Popen(
        [sys.executable, "-m", "chorus.reward_server.main", "--port", "0", "--workers", "1", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split()[1]
        _until_served(url)
        yield url, process
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def _until_served(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the reward server is not ready")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with reward_server("--timeout", "2") as (url, _):
        yield url


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    page = browser.open(f"{url}/")
    _until_ready(page)
    yield page
    assert page.complaints() == []
    assert all(request.startswith(f"{url}/") for request in page.requests)


def _until_ready(page: Page) -> None:
    page.until("document.querySelectorAll('#template option').length > 1")


def _fill(page: Page, **fields: str) -> None:
    """Set fields as pasting would: typing a megabyte through key events would test the driver."""
    for name, value in fields.items():
        page.evaluate(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
            f"(document.getElementById({json.dumps(name)}))"
        )


def _outcome(page: Page, act: str = "document.getElementById('grade').click()") -> str:
    """Act, wait for what the page then says, and return it."""
    page.evaluate("document.getElementById('announce').textContent = document.getElementById('error').textContent = ''")
    page.evaluate(act)
    return page.until("document.getElementById('announce').textContent || document.getElementById('error').textContent")


def _example(page: Page, label: str) -> str:
    return _outcome(
        page, f"[...document.querySelectorAll('#examples button')].find(b => b.textContent === '{label}').click()"
    )


def _texts(page: Page, selector: str) -> list[str]:
    return page.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)")


# --- what it shows --------------------------------------------------------------------------------


def test_a_graded_example_shows_verdict_place_markers_and_parts(page):
    _example(page, "Right, form slips")
    assert page.text("#word") == "Correct"
    assert _texts(page, "#reading .answer") == ["10"]
    assert page.evaluate(
        "document.querySelector('#reading .answer').previousSibling.textContent.endsWith('$\\\\boxed{')"
    )
    assert "Check: 10²" in "".join(_texts(page, "#reading .unread"))
    assert _texts(page, "#markers .count") == ["2 times", "once", "once", "once"]
    assert page.evaluate("[...document.querySelectorAll('#markers li')].map(e => e.className)") == [
        "unmet",
        "met",
        "met",
        "met",
    ]
    assert [page.text(part) for part in ("#accuracy", "#paid", "#total")] == ["1", "0.75", "1.75"]
    assert page.text("#steps").startswith("Cut: everything from </answer>.Found in the last box: 10")


@pytest.mark.parametrize(
    ("label", "word", "reward"),
    [
        ("Right answer", "Correct", "2"),
        ("Wrong answer", "Wrong", "1"),
        ("Another notation", "Correct", "2"),
        ("Hack: all boxed", "Wrong", "1"),
        ("Hack: equation chain", "Wrong", "1"),
        ("Hack: empty form", "Wrong", "1"),
        ("Hostile: integrals", "Timed out", "–"),
    ],
)
def test_each_example_shows_what_it_promises(page, label, word, reward):
    said = _example(page, label)
    assert (page.text("#word"), page.text("#total")) == (word, reward)
    assert said.startswith(f"{word}. ")


def test_control_enter_grades_what_was_typed_and_a_change_marks_the_verdict_stale(page):
    page.type("#completion", "I think it is \\boxed{41}")
    page.type("#gold", "42")
    page.press("Enter", ctrl=True)
    assert "another number" in page.until("document.getElementById('announce').textContent")
    assert page.text("#word") == "Wrong"
    assert page.evaluate("document.getElementById('stale').hidden")
    page.type("#gold", "41")
    assert not page.evaluate("document.getElementById('stale').hidden")
    page.press("Enter", ctrl=True)
    page.until("document.getElementById('word').textContent === 'Correct'")
    assert page.evaluate("document.getElementById('stale').hidden")


def test_kinds_and_modes_and_several_golds_reach_the_grader(page):
    _fill(page, completion="the answer is Paris", gold="B", kind="choice", options="London\nParis")
    assert _outcome(page).startswith("Correct")
    _fill(page, completion="so it is 42", gold="41\n42", kind="math", mode="train")
    assert _outcome(page).startswith("Correct")
    _fill(page, mode="strict")
    assert _outcome(page).startswith("No answer")
    assert page.evaluate("document.getElementById('options-field').hidden")


def test_the_prompt_is_shown_with_its_prefill(page):
    _fill(page, problem="What is <b>1+1</b>?", template="open-r1-teacher")
    page.evaluate("document.getElementById('prompt-box').open = true")
    prompt = page.until("document.getElementById('prompt').textContent")
    assert "What is <b>1+1</b>?" in prompt
    assert prompt.endswith("<|im_start|>assistant\n<think>\n")
    assert page.text("#prompt .marker") == "<think>\n"


# --- hostile text ---------------------------------------------------------------------------------


def test_untrusted_text_stays_text_and_markup_is_refused(page):
    evil = '<img src=x onerror="document.title=1"><script>document.title=1</script>\n\\boxed{<b>7</b>}'
    _fill(page, completion=evil, gold="<i>7</i>", problem=evil, template="qwen-math")
    _outcome(page)
    assert page.text("#reading") == evil
    assert (
        page.evaluate("document.querySelectorAll('#verdict img, #verdict script, #verdict b, #verdict i').length") == 0
    )
    assert page.evaluate("document.title") == "Chorus verifier playground"
    refused = "(() => { try { document.body.innerHTML = '<b>x</b>'; return false; } catch { return true; } })()"
    assert page.evaluate(refused)
    assert ["TrustedHTML" in complaint for complaint in page.complaints()] == [True]


@pytest.mark.parametrize(
    "completion",
    [
        "4\0\\boxed{42}",
        "\ud800 so \\boxed{42} \udc00",
        "😀" * 500 + "𝒙\ud83d = \\boxed{42}",
        "😀 lorem " + "lorem ipsum " * 85_000 + "\\boxed{42}",
        "x" * 1_000_000 + " \\boxed{42}",
        "<think>" * 20_000 + "</think>\\boxed{42}",
        "\\boxed{42}" + "\n" * 10_000 + "</answer>" + "\t\r" * 10_000,
    ],
    ids=["NUL", "lone surrogates", "astral", "a megabyte", "a megabyte without a space", "markers", "line breaks"],
)
def test_hostile_text_is_graded_and_highlighted_and_the_page_lives(page, completion):
    _fill(page, completion=completion, gold="42", template="deepseek-r1")
    assert _outcome(page).startswith("Correct")
    assert _texts(page, "#reading .answer") == ["42"]
    assert page.evaluate("document.getElementsByTagName('*').length") < 2000
    assert len(page.text("#reading")) < 20_000
    _fill(page, completion="\\boxed{41}")
    assert _outcome(page).startswith("Wrong")


def test_a_case_too_long_for_a_link_says_so(page):
    _fill(page, completion="x" * 40_000, gold="42")
    page.evaluate("document.getElementById('share').click()")
    assert "too long for a link" in page.until("document.getElementById('share-note').textContent")
    assert page.evaluate("location.hash") == ""


# --- links ----------------------------------------------------------------------------------------


def test_a_link_carries_the_whole_case_and_grades_it(browser, page):
    case = {"problem": "a & b #1 + 100%?", "completion": "ünï\n<c> & \0 \\boxed{1/2}", "gold": "0.5", "mode": "strict"}
    _fill(page, **case, template="simplerl")
    _outcome(page)
    page.evaluate("document.getElementById('share').click()")
    page.until("document.getElementById('share-note').textContent")
    other = browser.open(page.evaluate("location.href"))
    other.until("document.getElementById('word').textContent === 'Correct'")
    for name, value in {**case, "template": "simplerl", "kind": "math"}.items():
        assert other.evaluate(f"document.getElementById('{name}').value") == value
    other.evaluate("location.hash = '#completion=%5Cboxed%7B3%7D&gold=4&nonsense=1'")  # a link pasted into the same tab
    other.until("document.getElementById('word').textContent === 'Wrong'")
    assert other.evaluate("document.getElementById('template').value") == ""
    assert other.complaints() == []


# --- keyboard, screen reader, eyes ----------------------------------------------------------------


def test_the_keyboard_reaches_everything_in_reading_order(page):
    _example(page, "Right answer")
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    order = []
    for _ in range(40):
        page.press("Tab")
        name = page.evaluate("(e => e.id || e.tagName + ' ' + e.textContent.trim())(document.activeElement)")
        if order and name == order[0]:
            break
        seen = "(e => getComputedStyle(e).outlineStyle !== 'none')(document.activeElement)"
        assert name.startswith("BODY") or page.evaluate(seen), f"{name} has focus, and nothing shows it"
        order.append(name)
    assert order[0] == "A Skip to the verdict"
    wanted = ["problem", "completion", "gold", "template", "kind", "mode", "grade", "share", "reading"]
    assert [name for name in order if name in wanted] == wanted
    page.evaluate("document.querySelector('.skip').focus()")
    page.press("Enter")
    page.until("document.activeElement.id === 'verdict'")


def test_landmarks_labels_and_live_regions_are_there(page):
    _example(page, "Right, form slips")
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    roles = [role for role, _ in named]
    assert {"banner", "main", "navigation", "form", "status", "alert"} <= set(roles)
    assert roles.count("main") == 1
    nameless = {role for role, name in named if not name}
    assert not {"textbox", "combobox", "button", "link", "region", "form"} & nameless
    assert {("textbox", "Completion"), ("textbox", "Gold"), ("combobox", "Template")} <= set(named)
    assert {("form", "What was asked, what was said"), ("region", "Verdict")} <= set(named)
    headings = "[...document.querySelectorAll('h1,h2,h3')].filter(e => e.checkVisibility())"
    levels = page.evaluate(f"{headings}.map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels))


# Every visible text against what lies behind it, by the formulas of WCAG 2.2 (relative luminance, contrast ratio).
CONTRASTS = """
(() => {
  const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
  const luminance = (c) => rgb(c).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (rgb(c).length === 3 || rgb(c)[3] === 1) return c;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.checkVisibility()) continue;
    const [a, b] = [luminance(getComputedStyle(e).color), luminance(behind(e))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), walk.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
})()
"""


def test_text_has_the_contrast_of_wcag_aa_in_light_and_dark(page):
    _example(page, "Right, form slips")
    paper, backs = set(), set()
    for dark in (False, True):
        page.dark(dark)
        paper.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for verdict in ("correct", "wrong", "no_answer", "timeout"):
            page.evaluate(f"document.getElementById('result').dataset.verdict = '{verdict}'")
            backs.add(page.evaluate("getComputedStyle(document.getElementById('banner')).backgroundColor"))
            ratios = page.evaluate(CONTRASTS)
            assert len(ratios) > 40
            assert [text for ratio, text in ratios if ratio < 4.5] == []
    assert (len(paper), len(backs)) == (2, 8)


def test_a_narrow_window_has_one_column_and_no_sideways_scrolling(browser, url):
    page = browser.open(f"{url}/", width=360, height=740)
    _until_ready(page)
    _example(page, "Right, form slips")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.getElementById('verdict').getBoundingClientRect().top") > page.evaluate(
        "document.getElementById('form').getBoundingClientRect().bottom"
    )


# --- refusals -------------------------------------------------------------------------------------


def test_what_the_server_cannot_grade_is_said_and_no_old_verdict_stays(page):
    _example(page, "Right answer")
    _fill(page, gold="")
    assert "an empty gold matches nothing" in _outcome(page)
    assert not page.evaluate("document.getElementById('result').checkVisibility()")
    _fill(page, gold="10")
    assert _outcome(page).startswith("Correct")
    _fill(page, kind="code", tests="[1,")
    assert "not JSON" in _outcome(page)
    [noted] = page.complaints()  # by the browser itself: the page has not failed
    assert "422" in noted


def test_token_full_queue_and_a_server_that_is_gone_are_said(browser):
    with reward_server("--max-queue", "1", "--timeout", "20", token="sesame") as (url, process):
        page = browser.open(f"{url}/")
        assert "asks for its bearer token" in page.until("document.getElementById('error').textContent")
        assert page.evaluate("document.activeElement.id") == "token"
        assert "visible ASCII" in (_fill(page, token="sés ame") or _outcome(page))
        assert "refused this token" in (_fill(page, token="sesam") or _outcome(page))
        _fill(page, token="sesame")
        assert _example(page, "Right answer").startswith("Correct")
        assert "sesame" not in page.evaluate("location.href + document.cookie + JSON.stringify(localStorage)")
        assert "sesame" not in page.text("#request")
        page.evaluate("location.reload()")
        page.until("document.readyState === 'complete' && document.getElementById('word').textContent === 'Correct'")

        holder = threading.Thread(target=_hold, args=(url, "sesame"))
        holder.start()
        while "chorus_reward_server_queue_items 1.0" not in httpx.get(f"{url}/metrics").text:
            assert holder.is_alive()
        assert "queue is full. Try again in" in _outcome(page)

        process.kill()
        holder.join()
        assert "No answer from" in _outcome(page)


def _hold(url: str, token: str) -> None:
    """Occupy the server's only place with a grade that does not end; the server is killed under it."""
    with suppress(httpx.HTTPError):
        body = {"completion": HANGS, "gold": "1"}
        httpx.post(f"{url}/v1/grade", json=body, headers={"authorization": f"Bearer {token}"}, timeout=60)
