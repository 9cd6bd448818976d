"""A recipe is its file, then the environment, then `--set`; a `RunConfig` built in code is what the code says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from forge import inputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus.protocol.config import other_names
from chorus.protocol.config.load import ConfigError, load_config
from chorus.protocol.config.presets import PRESETS
from chorus.protocol.config.run import RunConfig

RECIPE = """
[model]
path = "model"
context = 4096
[problems]
train = ["train.jsonl"]
[templates]
names = ["qwen-math", "abel"]
weights = { qwen-math = 2.0 }
[sampling]
max_tokens = 512
[learner]
lr = 1e-3
weight_decay = 0.5
"""
REQUIRED: dict[str, dict[str, Any]] = {
    "model": {"path": "model"},
    "problems": {"train": ["train.jsonl"]},
    "templates": {"names": ["qwen-math", "abel"]},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "song.toml"
    path.write_text(RECIPE)
    return path


def refusal(path: Path, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides, environment or {})
    (line,) = str(error.value).splitlines()
    return line


def test_set_wins_over_the_environment_which_wins_over_the_file_which_wins_over_the_defaults(recipe: Path) -> None:
    environment = {"CHORUS_LEARNER__LR": "2e-3", "CHORUS_LEARNER__GRAD_CLIP": "2"}
    config = load_config(recipe, ["learner.lr=3e-3"], environment)
    assert (config.learner.lr, config.learner.grad_clip, config.learner.weight_decay) == (3e-3, 2.0, 0.5)
    assert config.learner.adam_eps == 1e-8
    assert load_config(recipe, (), environment).learner.lr == 2e-3
    assert load_config(recipe, (), {}).learner.lr == 1e-3


def test_one_key_of_a_section_leaves_its_other_keys_as_the_file_has_them(recipe: Path) -> None:
    config = load_config(recipe, ["templates.weights.abel=3"], {"CHORUS_TEMPLATES__CHAT": "model"})
    assert config.templates.weights == {"qwen-math": 2.0, "abel": 3.0}
    assert config.templates.chat == "model"
    assert config.templates.names == ["qwen-math", "abel"]


def test_a_list_replaces_the_file_s_list(recipe: Path) -> None:
    environment = {"CHORUS_PROBLEMS__TRAIN": '["a.jsonl", "b.jsonl"]'}
    assert load_config(recipe, (), environment).problems.train == ["a.jsonl", "b.jsonl"]
    assert load_config(recipe, ['problems.train=["c.jsonl"]'], environment).problems.train == ["c.jsonl"]


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,7}", fullmatch=True)


@given(
    st.lists(
        st.fixed_dictionaries({"name": NAMES, "steps": st.integers(1, 9), "hint_ratio": st.floats(0, 0.9)}),
        min_size=1,
        unique_by=lambda stage: str(stage["name"]),
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_list_is_the_same_in_json_and_in_toml_for_set_and_for_the_environment(
    recipe: Path, stages: list[dict[str, Any]]
) -> None:
    del stages[-1]["steps"]  # the last one lasts to the end
    as_json = json.dumps(stages)
    as_toml = (
        "[" + ", ".join("{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in s.items()) + "}" for s in stages) + "]"
    )
    found = [
        load_config(recipe, [f"curriculum.stages={as_json}"], {}),
        load_config(recipe, [f"curriculum.stages={as_toml}"], {}),
        load_config(recipe, (), {"CHORUS_CURRICULUM__STAGES": as_json}),
        load_config(recipe, (), {"CHORUS_CURRICULUM__STAGES": as_toml}),
    ]
    for config in found:
        assert [
            s.model_dump(include={*told}) for s, told in zip(config.curriculum.stages, stages, strict=True)
        ] == stages


@pytest.mark.parametrize("text", ["[abel,open-r1]", "{a: 1}", '["abel"', "[abel, 'x']"])
def test_a_list_whose_quotes_the_shell_took_off_is_refused_with_what_to_write(recipe: Path, text: str) -> None:
    said = refusal(recipe, [f"templates.names={text}"])
    assert said.startswith(f"--set templates.names={text}: a list or a section, but neither JSON")
    assert "put words in double quotes" in said


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ('curriculum.stages=[{"name": "a", "hint_ratio": 1.0}]', "curriculum.stages.0.hint_ratio: Input should be 'on"),
        ("placement.learner_gpus=[[[1]]]", "placement.learner_gpus.0: Input should be a valid integer; or: Input"),
        ('curriculum.stages=[{"name": "a", "stpes": 1}]', "Did you mean curriculum.stages.0.steps?"),
        ("learner.grad_clp=1", "Did you mean learner.grad_clip?"),
    ],
)
def test_a_value_of_several_forms_and_a_key_below_a_list_are_called_by_their_place(
    recipe: Path, item: str, said: str
) -> None:
    line = refusal(recipe, [item])
    assert said in line
    assert "constrained" not in line
    assert "literal[" not in line


def test_the_environment_holds_sections_and_lists_of_lists_as_json(recipe: Path) -> None:
    environment = {
        "CHORUS_LEARNER": '{"betas": [0.8, 0.9], "lr": 0.25}',
        "CHORUS_PLACEMENT__GENERATOR_GPUS": "[[1], [2, 3]]",
    }
    config = load_config(recipe, (), environment)
    assert config.learner.betas == (0.8, 0.9)
    assert config.learner.lr == 0.25
    assert config.learner.weight_decay == 0.5, "the section's JSON is laid over the file's section"
    assert config.placement.generator_gpus == [[1], [2, 3]]


@pytest.mark.parametrize("order", [("CHORUS_LEARNER", "CHORUS_LEARNER__LR"), ("CHORUS_LEARNER__LR", "CHORUS_LEARNER")])
def test_a_key_of_its_own_wins_over_its_section_s_json_in_any_order(recipe: Path, order: tuple[str, str]) -> None:
    values = {"CHORUS_LEARNER": '{"lr": 0.25, "grad_clip": 4}', "CHORUS_LEARNER__LR": "0.75"}
    config = load_config(recipe, (), {name: values[name] for name in order})
    assert (config.learner.lr, config.learner.grad_clip) == (0.75, 4.0)


def test_keys_nest_as_deep_as_the_configuration_does(recipe: Path) -> None:
    environment = {"CHORUS_CURRICULUM__HINTS__ONLINE__START": "0.25", "CHORUS_TEMPLATES__WEIGHTS__ABEL": "0.5"}
    config = load_config(recipe, ["curriculum.hints.online.max=0.5"], environment)
    assert (config.curriculum.hints.online.start, config.curriculum.hints.online.max) == (0.25, 0.5)
    assert config.templates.weights == {"qwen-math": 2.0, "abel": 0.5}


@pytest.mark.parametrize("name", ["CHORUS_RUN__SEED", "chorus_run__seed", "Chorus_Run__Seed"])
def test_names_of_variables_are_read_in_any_case(recipe: Path, name: str) -> None:
    assert load_config(recipe, (), {name: "7"}).run.seed == 7


def test_a_key_of_the_run_needs_no_section_in_set(recipe: Path) -> None:
    assert (
        load_config(recipe, ["seed=3", "steps=5"], {}).run.model_dump()
        == RunConfig.model_validate(REQUIRED | {"run": {"seed": 3, "steps": 5}}).run.model_dump()
    )


@pytest.mark.parametrize(
    "text", ["2026", "1e5", "0x10", "true", "2026-11-22", "07:30:00", "inf", "[a]", "1_000", "a b"]
)
def test_a_text_is_taken_as_it_is_written_where_the_key_holds_one(recipe: Path, text: str) -> None:
    assert load_config(recipe, [f"run.name={text}"], {}).run.name == text
    assert load_config(recipe, (), {"CHORUS_RUN__NAME": text}).run.name == text


def test_a_quoted_text_loses_its_quotes_in_set(recipe: Path) -> None:
    assert load_config(recipe, ['run.name="2026"'], {}).run.name == "2026"


def test_numbers_stay_numbers_where_the_key_holds_one(recipe: Path) -> None:
    config = load_config(
        recipe, ["run.seed=2026", "templates.weights.abel=2"], {"CHORUS_TRACKERS__TENSORBOARD": "false"}
    )
    assert config.run.seed == 2026
    assert config.templates.weights["abel"] == 2.0
    assert config.trackers.tensorboard is False
    assert "run.seed: Input should be a valid integer" in refusal(recipe, ["run.seed=fast"])


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        (
            {"CHORUS_SINGER__LOUD": "1"},
            "CHORUS_SINGER__LOUD: there is no section singer; name keys as CHORUS_SECTION__KEY",
        ),
        ({"CHORUS_LEARNER": "fast"}, "CHORUS_LEARNER: this names a section, and its value is none; name a key as"),
        ({"CHORUS_LEARNER": "{fast"}, "CHORUS_LEARNER: a list or a section, but neither JSON (Expecting property name"),
        ({"CHORUS_LEARNER__BETAS": "[0.1"}, "CHORUS_LEARNER__BETAS: a list or a section, but neither JSON ("),
        ({"CHORUS_LEARNER__LRR": "1"}, "learner.lrr is not a known key; known here: adam_eps, betas, "),
        ({"CHORUS_LEARNER__LR": "fast"}, "learner.lr: Input should be a valid number"),
        (
            {"CHORUS_LEARNER__LR__DEEP": "1", "CHORUS_LEARNER__LR": "1"},
            "LR__DEEP: lr has a value already; it can't hold",
        ),
    ],
)
def test_a_variable_that_can_not_be_right_is_refused(recipe: Path, environment: dict[str, str], line: str) -> None:
    assert line in refusal(recipe, (), environment)


@pytest.mark.parametrize("name", ["CHORUS_LOG", "CHORUS_REWARD_TOKEN", "CHORUS_TEST_ENGINE", "LEARNER__LR", "CHORUS"])
def test_variables_that_name_no_section_are_not_ours(recipe: Path, name: str) -> None:
    assert load_config(recipe, (), {name: "anything"}) == load_config(recipe, (), {})


def test_bytes_that_are_no_text_are_refused(recipe: Path, tmp_path: Path) -> None:
    assert refusal(recipe, ["run.name=a\udcff"]) == r"run.name: 'a\udcff' is no text; write it in UTF-8"
    (tmp_path / "config.json").write_text(json.dumps(REQUIRED | {"problems": {"train": ["a", "\ud83d"]}}))
    assert r"problems.train: '\ud83d' is no text" in refusal(tmp_path / "config.json")


def test_a_byte_order_mark_before_a_recipe_is_passed_over(recipe: Path) -> None:
    recipe.write_text(RECIPE, encoding="utf-8-sig")
    assert load_config(recipe, (), {}).model.path == "model"


def test_without_an_environment_that_of_the_process_holds(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHORUS_RUN__SEED", "11")
    assert load_config(recipe).run.seed == 11


# Values that may stand beside each other, so that any mixture of them is a configuration.
SETTINGS: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("run", "name"): st.text(max_size=9).filter(lambda name: "/" not in name and name not in (".", "..")),
    ("run", "seed"): st.integers(-(2**63), 2**64 - 1),
    ("run", "steps"): st.integers(min_value=1),
    ("model", "dtype"): st.sampled_from(["float32", "bfloat16"]),
    ("model", "context"): st.integers(min_value=4096),
    ("problems", "heldout"): st.lists(NAMES, max_size=3),
    ("templates", "weights"): st.dictionaries(st.sampled_from(["qwen-math", "abel"]), st.floats(0.5, 9)),
    ("sampling", "temperature"): st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    ("learner", "lr"): st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    ("learner", "betas"): st.tuples(*2 * [st.floats(0, 1, exclude_max=True)]),
    ("alarms", "clip_fraction"): st.none() | st.floats(0, 1),
    ("objective", "name"): st.sampled_from(["grpo", "dapo", "gspo", "cispo"]),
    ("generator", "vllm_args"): st.lists(st.text(), max_size=3),
    ("placement", "generator_gpus"): st.none() | st.lists(st.lists(st.integers(0, 7)), max_size=3),
    ("trackers", "tensorboard"): st.booleans(),
}


@st.composite
def configurations(draw: st.DrawFn) -> RunConfig:
    fields = {section: dict(keys) for section, keys in REQUIRED.items()}
    for section, key in draw(st.sets(st.sampled_from(sorted(SETTINGS)))):
        fields.setdefault(section, {})[key] = draw(SETTINGS[section, key])
    return RunConfig.model_validate(fields)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(config=configurations())
def test_what_config_json_holds_is_read_as_the_same_configuration(config: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json(indent=2))
    assert load_config(path, (), {}) == config
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=True))
    assert load_config(path, (), {}) == config


@settings(deadline=None, max_examples=30)
@given(config=configurations(), seed=st.integers())
def test_a_configuration_built_in_code_ignores_the_environment(config: RunConfig, seed: int) -> None:
    variables = {"CHORUS_RUN__SEED": str(seed), "CHORUS_LEARNER": '{"lr": 123.0}', "CHORUS_MODEL__PATH": "another"}
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        assert RunConfig.model_validate(config.model_dump()) == config
    finally:
        os.environ.clear()
        os.environ.update(before)


@settings(deadline=None, max_examples=50)
@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12))
def test_any_text_reaches_a_key_that_holds_a_text(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "texts.toml"
    path.write_text(RECIPE)
    assert load_config(path, (), {"CHORUS_TRACKERS__WANDB": text}).trackers.wandb == text
    if not text.lstrip().startswith(("'", '"')):
        assert load_config(path, [f"trackers.wandb={text}"], {}).trackers.wandb == text


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["templates.chat=gemma"], "'gemma' is no chat format: give chatml, model, or the file of a chat template"),
        (["templates.chat_arguments.enable_thinking=false"], "set chat = 'model'"),
        (["templates.chat=model", "templates.chat_arguments.tokenize=true"], "tokenize is set by every prompt itself"),
    ],
)
def test_a_chat_format_that_can_not_be_right_is_refused(recipe: Path, sets: list[str], words: str) -> None:
    assert words in refusal(recipe, sets)


def test_a_chat_template_and_what_it_is_told_come_from_the_recipe(recipe: Path) -> None:
    config = load_config(recipe, ["templates.chat=my.jinja", "templates.chat_arguments.enable_thinking=false"], {})
    assert (config.templates.chat, config.templates.chat_arguments) == ("my.jinja", {"enable_thinking": False})


def test_adapters_are_sent_as_they_are(recipe: Path) -> None:
    words = "learner.delta sends what differs between whole weights, and with model.lora adapters travel"
    assert words in refusal(recipe, ["learner.delta=true", "model.lora.rank=4"])
    assert load_config(recipe, ["learner.delta=true"], {}).learner.delta


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("learner.learning_rate", "learner.lr"),
        ("lr", "learner.lr"),
        ("num_generations", "sampling.group_size"),
        ("sampling.max_new_tokens", "sampling.max_tokens"),
        ("temperature", "sampling.temperature"),
        ("objective.beta", "objective.kl_coefficient"),
        ("evaluation.evry", "evaluation.every"),
        ("model.lora.r", "model.lora.rank"),
        ("learner.sampling", None),
    ],
)
def test_a_key_of_another_trainer_s_or_with_a_slip_is_answered_with_ours(
    recipe: Path, key: str, ours: str | None
) -> None:
    said = refusal(recipe, [f"{key}=1"])
    assert f"{key} is not a known key; known here: " in said
    assert (f"Did you mean {ours}?" in said) if ours else ("Did you mean" not in said)


def test_the_names_of_others_stand_for_keys_that_there_are_and_a_lost_letter_is_found() -> None:
    keys = set(other_names.all_keys())
    assert set(other_names._OURS.values()) <= keys
    assert not {key for key in keys if key.rpartition(".")[2] in other_names._OURS}
    for key in keys:
        *section, name = key.split(".")
        if len(name) > 4:
            slip = name[:2] + name[3:]
            assert other_names.meant((*section, slip)) == key


ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-2, 10**20), st.floats(), st.sampled_from(["", "x", "auto", "a.b:c"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=3,
)
PLACES = st.one_of(st.sampled_from(sorted(other_names.all_keys())), st.sampled_from(sorted(RunConfig.model_fields)))
OBJECTIVES = st.sampled_from([*sorted(PRESETS), 5, []])


@inputs(150)
@given(st.dictionaries(PLACES, ANYTHING, max_size=3), OBJECTIVES, st.booleans())
def test_whatever_stands_in_a_recipe_it_is_read_or_refused(
    tmp_path: Path, given_values: dict[str, Any], objective: Any, by_set: bool
) -> None:
    fields: dict[str, Any] = json.loads(json.dumps(REQUIRED)) | {"objective": {"name": objective}}
    for place, value in given_values.items():
        *sections, key = place.split(".")
        section = fields
        for name in sections:
            section[name] = section[name] if isinstance(section.get(name), dict) else {}
            section = section[name]
        section[key] = value
    path = tmp_path / "config.json"
    path.write_text(json.dumps(REQUIRED if by_set else fields))
    overrides = [f"{place}={json.dumps(value)}" for place, value in given_values.items()] if by_set else []
    with suppress(ConfigError):
        assert load_config(path, overrides, {}).capacity > 0


PATHS = ["run.dir={}", "model.path={}", 'templates.files=["{}"]', "templates.chat={}.jinja", 'finetune.data=["{}"]']
PATHS += [f'problems.{key}=["a", "{{}}"]' for key in ("train", "heldout", "validation", "exclude_overlap")]
PATHS += ['curriculum.pass_rates=["{}"]', 'reward.graders=[{{name = "mine", function = "{}/g.py:f"}}]']


@pytest.mark.parametrize("item", PATHS)
@pytest.mark.parametrize("begins", ["~/x", "$HOME/x", "~"])
def test_a_path_that_only_a_shell_could_read_is_refused(recipe: Path, item: str, begins: str) -> None:
    assert "write the path out" in refusal(recipe, [item.format(begins)])
    load_config(recipe, [item.format("my~$x/y")], {})


@pytest.mark.parametrize("name", ["a/b", "../x", "..", "."])
def test_the_name_of_a_run_stays_within_its_folder(recipe: Path, name: str) -> None:
    assert "a name holds no /" in refusal(recipe, [f"run.name={name}"])
    assert load_config(recipe, [f"run.name={name.replace('/', '-')}x"], {}).run.name == f"{name.replace('/', '-')}x"


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("CHORUS_LEARNER_LR", "CHORUS_LEARNER__LR"),
        ("chorus_learner_lr", "CHORUS_LEARNER__LR"),
        ("CHORUS_SEED", "CHORUS_RUN__SEED"),
        ("CHORUS_RUN_STEPS", "CHORUS_RUN__STEPS"),
        ("CHORUS_SAMPLING_MAX_TOKENS", "CHORUS_SAMPLING__MAX_TOKENS"),
        ("CHORUS_CURRICULUM_HINTS_ONLINE_START", "CHORUS_CURRICULUM__HINTS__ONLINE__START"),
    ],
)
def test_a_variable_with_one_underscore_is_refused_with_its_name(recipe: Path, name: str, write: str) -> None:
    assert f"{name}: " in (said := refusal(recipe, (), {name: "1"}))
    assert f" {write};" in said


def test_none_of_the_deployment_s_own_variables_is_taken_for_a_key(recipe: Path) -> None:
    root = Path(__file__).parents[3]
    places = [root / "Makefile", *root.glob("docker-compose*.yml")]
    places += [file for room in ("deploy", "protocol", "cli") for file in (root / room).rglob("*") if file.is_file()]
    texts = (file.read_text(errors="replace") for file in places if file.suffix != ".pyc")
    names = {name for text in texts for name in re.findall(r"\bCHORUS_[A-Z_]+\b", text) if "__" not in name}
    ours = {name for name in names if name.removeprefix("CHORUS_").lower() not in RunConfig.model_fields}
    assert {"CHORUS_LOG", "CHORUS_LEARNER_GPUS", "CHORUS_RUN_ID"} <= ours
    load_config(recipe, (), dict.fromkeys(ours, "1"))


@pytest.mark.parametrize(("key", "said"), [("Sampling.group_size", "sampling?"), ("leraner.lr", "learner?")])
def test_a_section_one_letter_off_is_suggested_as_it_is_written(recipe: Path, key: str, said: str) -> None:
    assert f"Did you mean {said}" in refusal(recipe, [f"{key}=4"])


@pytest.mark.parametrize(
    ("overrides", "environment", "begins"),
    [
        ([], {}, "recipe "),
        (["learner.lr=fast"], {}, "--set learner.lr=fast: learner.lr: Input"),
        (["learner.lr=fast"], {"CHORUS_LEARNER__LR": "slow"}, "--set learner.lr=fast: learner.lr: Input"),
        ([], {"CHORUS_LEARNER__LR": "slow"}, "CHORUS_LEARNER__LR: learner.lr: Input"),
        (["learner.weight_decay=1"], {"CHORUS_LEARNER__LR": "slow"}, "CHORUS_LEARNER__LR: learner.lr: Input"),
        ([], {"CHORUS_LEARNER": '{"lr": "slow"}'}, "CHORUS_LEARNER: learner.lr: Input"),
        (["sampling.top_p=0.9"], {}, "--set sampling.top_p=0.9: sampling.top_p is 0.9; training needs 1.0"),
        (["model.context=100"], {}, "--set model.context=100: problems.max_prompt_tokens (1024)"),
        (["learner.lr_floor=1"], {}, "--set learner.lr_floor=1: learner: lr_floor (1) is above lr"),
        (["objective.dual_clip=2", "objective.loss=gspo"], {}, "--set objective.loss=gspo: objective: loss gspo has"),
        (["model.lora.alpha=2"], {}, "recipe "),
        (["learner.lr=x"], {"CHORUS_RUN__STEPS": "0"}, "CHORUS_RUN__STEPS, --set learner.lr=x: run.steps: Input"),
    ],
)
def test_a_fault_is_said_to_be_of_who_set_it(
    recipe: Path, overrides: list[str], environment: dict[str, str], begins: str
) -> None:
    if not overrides and not environment:
        recipe.write_text(RECIPE.replace("lr = 1e-3", 'lr = "fast"'))
    assert refusal(recipe, overrides, environment).startswith(begins)


@pytest.mark.parametrize(
    ("item", "write"),
    [
        ("problems.train=a.jsonl", 'write ["a.jsonl"]'),
        ("templates.names=abel, qwen-math", 'write ["abel", "qwen-math"]'),
        ("learner.betas=0.9,0.99", "write [0.9, 0.99]"),
        ("placement.learner_cpus=3", "write [3]"),
        ("placement.generator_gpus=0", "write [[0]]"),
    ],
)
def test_one_value_where_a_list_belongs_is_refused_with_the_list(recipe: Path, item: str, write: str) -> None:
    key, _, value = item.partition("=")
    section, name = key.split(".")
    for said in (refusal(recipe, [item]), refusal(recipe, (), {f"CHORUS_{section}__{name}".upper(): value})):
        assert said.endswith(write)
    load_config(recipe, [f"{key}={write.removeprefix('write ')}"], {})


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("learner.lr=true", "--set learner.lr=true: learner.lr: true or false where a number belongs"),
        ("run.steps=true", "--set run.steps=true: run.steps: true or false where a number"),
        ("learner.betas=[0.9, true]", "learner.betas.1: true or false where"),
        ("templates.weights.abel=false", "templates.weights.abel: true or false where"),
        ('curriculum.stages=[{name = "a", hint_ratio = true}]', "curriculum.stages.0.hint_ratio: true or false"),
        ("learner.betas=[2, 3]", "learner.betas.0: Input should be less than 1"),
        ("learner.betas=[0.9, 1]", "learner.betas.1: Input should be less than 1"),
        ("relift.betas=[-1, 0.9]", "relift.betas.0: Input should be greater than or equal to 0"),
        (f"run.seed={2**64}", "run.seed: Input should be less than 18446744073709551616"),
        (f"run.seed={-(2**63) - 1}", "run.seed: Input should be greater than or equal to -9223372036854775808"),
    ],
)
def test_numbers_that_a_run_can_not_use_are_refused(recipe: Path, item: str, said: str) -> None:
    assert said in refusal(recipe, [item])


@pytest.mark.parametrize(
    "item", ["learner.delta=true", "reward.stop_properly=1", f"run.seed={2**64 - 1}", "learner.lr=1"]
)
def test_what_is_no_number_or_may_be_one_is_read(recipe: Path, item: str) -> None:
    load_config(recipe, [item, "templates.chat_arguments={x = true}", "templates.chat=model"], {})


def test_a_share_for_the_shadow_needs_one(recipe: Path) -> None:
    assert "reward: shadow_share does nothing without a shadow" in refusal(recipe, ["reward.shadow_share=0.5"])
    load_config(recipe, ["reward.shadow_share=0.5", "reward.shadow=math-verify"], {})
    load_config(recipe, ["reward.shadow_share=0.1"], {})
