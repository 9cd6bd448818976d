"""`chorus recipes` and `chorus init`: what comes with Chorus, and a file of one's own to start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.cli import init, recipes
from chorus.protocol.config.load import load_config
from chorus.protocol.runtime.exits import CannotGoOn

SHIPPED = Path(__file__).parents[3] / "recipes"


def test_the_recipes_are_those_of_the_repository_each_with_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(recipes.carried()) == {path.stem for path in SHIPPED.glob("*.toml")}
    assert recipes.main([]) == 0
    told = capsys.readouterr().out
    for name in recipes.carried():
        assert name in told
        assert recipes.about(recipes.carried()[name].read_text()).endswith(".")


@pytest.mark.parametrize("name", sorted(recipes.carried()))
def test_what_init_writes_means_the_same_as_its_recipe(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert init.main([name, "my.toml"]) == 0
    assert load_config("my.toml", environment={}) == load_config(SHIPPED / f"{name}.toml", environment={})
    original = [line for line in (SHIPPED / f"{name}.toml").read_text().splitlines() if line]
    written = Path("my.toml").read_text().splitlines()
    assert all(any(line.startswith(kept) for line in written) for kept in original)  # its own comments, too
    assert max(map(len, written)) <= max(120, *map(len, original))


def test_keys_are_explained_and_the_next_step_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert init.main(["my.toml"]) == 0
    assert "chorus run my.toml --dry-run" in capsys.readouterr().out
    text = Path("my.toml").read_text()
    assert "steps = 50  # optimizer steps (one rollout batch each)\n" in text
    assert 'path = "starter"          # built once from nothing, under 3 minutes, then cached\n' in text


def test_a_key_is_explained_by_its_own_section() -> None:
    text = "[curriculum.hints]\nprobe_share = 0.0\n\n[[curriculum.stages]]\nsteps = 100\n\n[run]\nsteps = 1\n"
    lines = init.commented(text).splitlines()
    assert lines[-1] == "steps = 1  # optimizer steps (one rollout batch each)"
    assert not any("optimizer steps" in line for line in lines[:-1])


def test_files_that_only_the_user_has_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    init.main(["qwen2.5-math-1.5b", "my.toml"])
    said = capsys.readouterr().out
    assert "train_math_level3to5.jsonl.gz, data/math/eval_math500.jsonl.gz, data/math/validation_math.jsonl.gz" in said
    assert said.count("give the command `chorus fetch math`, which brings it") == 1


def test_init_never_overwrites_and_names_what_it_has(tmp_path: Path) -> None:
    mine = tmp_path / "my.toml"
    mine.write_text("mine")
    with pytest.raises(CannotGoOn, match=r"my\.toml: it is there already, and is left as it is"):
        init.main([str(mine)])
    assert mine.read_text() == "mine"
    with pytest.raises(CannotGoOn, match=r"no recipe nobody; those that come with Chorus: .*, demo, demo_"):
        init.main(["nobody", str(tmp_path / "other.toml")])
    with pytest.raises(CannotGoOn, match=r"name it .*demo\.toml"):
        init.main([str(tmp_path / "demo")])
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]
