"""The playground's files and headers; what they do in a browser is in tests/integration/test_playground.py."""

import re
from pathlib import Path

import httpx
import pytest

from chorus.reward_server import playground
from chorus.reward_server.api.app import create_app
from chorus.reward_server.api.settings import Settings

FOLDER = Path(playground.__file__).parent
PATHS = [playground.PAGES.get(name, f"/playground/{name}") for name in playground.FILES]


@pytest.fixture
def client():
    app = create_app(Settings(token="secret"))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://reward")


@pytest.mark.parametrize("path", PATHS)
async def test_every_file_is_served_without_a_token_under_a_strict_policy(client, path):
    response = await client.get(path)
    assert response.status_code == 200
    policy = dict(rule.strip().split(" ", 1) for rule in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert (await client.head(path)).status_code == 200


async def test_no_other_path_is_served(client):
    for path in ("/playground/", "/playground/__init__.py", "/playground/../app.py", "/playground/%2e%2e/app.py"):
        assert (await client.get(path)).status_code == 404


def test_every_file_of_the_folder_is_served_and_packaged():
    found = {path.name for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".py"}
    assert found == set(playground.FILES)
    pyproject = (FOLDER.resolve().parents[1] / "pyproject.toml").read_text()
    globs = re.search(r'"chorus.reward_server.playground" = \[(.*)\]', pyproject)
    assert globs is not None
    assert {Path(name).suffix for name in found} == {Path(glob).suffix for glob in re.findall(r'"(.*?)"', globs[1])}


async def test_the_interfaces_page_and_all_that_it_names_come_from_this_server(client):
    """In a closed network there is nobody else: no stylesheet, script or font of another host, nor a map of one."""
    page = (await client.get("/docs")).text
    named = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert {"playground/docs.js", "playground/style.css", "openapi.json"} <= set(named)
    for name in named:
        assert (await client.get(f"/{name.removeprefix('.')}")).status_code == 200, name
    script = (FOLDER / "docs.js").read_text(encoding="utf-8")
    for module in re.findall(r'from "\./(.+?)"', script):
        assert module in playground.FILES
    described = (await client.get("/openapi.json")).json()
    assert {"/v1/grade", "/v1/grade/batch", "/v1/explain"} <= set(described["paths"])
    assert (await client.get("/redoc")).status_code == 404  # it would ask for its script elsewhere


def test_no_file_names_another_host_or_makes_markup_of_text():
    for name in playground.FILES:
        text = (FOLDER / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), name
        assert not re.search(r"<script(?! type=\"module\" src=)|\son\w+=|<style|\sstyle=", text), name
