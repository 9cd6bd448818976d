"""The doctor: each planted fault is named with its mend, and a run that can learn hears nothing."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from chorus.learner.metrics.doctor.examine import Finding, Look, examine
from chorus.learner.metrics.doctor.tokens import edges
from chorus.learner.metrics.doctor.visit import Doctor
from chorus.problems.rendering import Renderer
from chorus.protocol.config.load import load_config
from chorus.protocol.config.run import RunConfig
from chorus.protocol.messages import Grade, RolloutGroup, Sample, Sampling, Task, Timing, pack_floats, pack_ids
from chorus.protocol.templates.load import choose_templates
from chorus.starter.tokenizer import END_OF_TEXT_ID, END_OF_TURN_ID, build_tokenizer

GROUPS, SIZE, LONGEST = 10, 8, 64
ROOT = Path(__file__).parents[3]
TEMPLATE = choose_templates(["deepseek-r1"])["deepseek-r1"]
PROBLEM = "What is 3 + 4 - 5?"
Answer = dict[str, Any]  # of one sample: ids, finish, and what its grade says


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer([TEMPLATE])


def config_of(**sections: dict[str, Any]) -> RunConfig:
    recipe: dict[str, dict[str, Any]] = {
        "model": {"path": "any", "context": 512},
        "problems": {"train": ["any"], "max_prompt_tokens": 128},
        "templates": {"names": [TEMPLATE.name]},
        "sampling": {"group_size": SIZE, "max_tokens": LONGEST},
    }
    return RunConfig.model_validate({name: recipe.get(name, {}) | sections.get(name, {}) for name in recipe | sections})


def healthy(k: int) -> Answer:
    """Sample `k` of all: half are right, an eighth is cut off, none is like its neighbour."""
    cut = k % 8 == 7
    ids = [50 + k, *range(60, 60 + k % 20)]
    return {
        "ids": (ids + [61] * LONGEST)[:LONGEST] if cut else [*ids, END_OF_TURN_ID],
        "finish": "length" if cut else "stop",
        "accuracy": float(k % 2),
        "format": 0.5,
        "verdict": "correct" if k % 2 else "wrong",
    }


def groups_of(
    tokenizer: PreTrainedTokenizerFast,
    fault: Callable[[int], Answer] = lambda k: {},
    prompt: list[int] | None = None,
    seconds: float = 1.0,
    number: int = GROUPS,
) -> list[RolloutGroup]:
    """Healthy groups, but for what `fault` says of a sample."""
    ids = Renderer(tokenizer, "chatml").ids(TEMPLATE, PROBLEM) if prompt is None else prompt
    found = []
    for index in range(number):
        answers = [healthy(k) | fault(k) for k in range(index * SIZE, (index + 1) * SIZE)]
        task = Task(
            run_id="run", index=index, epoch=0, problem_id=f"p{index}", kind="math", gold=["2"],
            template=TEMPLATE.name, prompt_ids=pack_ids(ids), group_size=SIZE, min_version=0, deadline_s=9.0,
            sampling=Sampling(temperature=1.0, max_tokens=LONGEST, stop=[END_OF_TURN_ID]), admitted_at=0.0,
        )  # fmt: skip
        timing = Timing(started=10.0, generated=10.0 + seconds, graded=10.0 + seconds)
        samples = list(map(_sample, answers))
        found.append(RolloutGroup(task=task, generator_id="g", attempt=1, samples=samples, timing=timing))
    return found


def _sample(answer: Answer) -> Sample:
    ids = answer["ids"]
    facts = {key: answer.get(key) for key in ("verdict", "accuracy", "format", "reason")}
    return Sample(
        token_ids=pack_ids(ids),
        logprobs=pack_floats([-0.5] * len(ids)),
        versions=[(1, 0, len(ids))] if ids else [],
        finish_reason=answer["finish"],
        grade=Grade.model_validate(facts),
    )


def found(
    tokenizer: PreTrainedTokenizerFast, groups: list[RolloutGroup], config: RunConfig | None = None, **more: Any
) -> list[Finding]:
    return examine(Look(config or config_of(), groups, tokenizer, {TEMPLATE.name: TEMPLATE}, **more))


def cut(k: int) -> Answer:
    return {"ids": [50 + k, *[60] * (LONGEST - 1)], "finish": "length"}


def test_a_run_that_can_learn_hears_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    assert found(tokenizer, groups_of(tokenizer), memory_peak=4 * 2**30, memory_limit=16 * 2**30) == []


FAULTS: dict[str, tuple[Callable[[int], Answer], str]] = {
    "cut_off": (lambda k: cut(k) if k % 8 else {}, r"88% of 80 answers were cut off at 64 tokens: raise sampling.max"),
    "no_end": (
        cut,
        r"all 80 answers were cut off at 64 tokens, and none came to an end token \(<\|im_end\|> \(2\)\)",
    ),
    "empty": (
        lambda k: {"ids": [END_OF_TURN_ID], "finish": "stop"} if k % 4 else {},
        "75% of 80 answers end with th",
    ),
    "all_wrong": (
        lambda k: {"accuracy": 0.0},
        "100% of 10 groups have one reward.*10 are all wrong, 0 all right",
    ),
    "all_right": (lambda k: {"accuracy": 1.0}, r"0 are all wrong, 10 all right; take harder problems"),
    "no_spread": (lambda k: {"accuracy": 0.5}, r"one reward for all samples.*a larger sampling.temperature"),
    "same_answers": (lambda k: {"ids": [60, 2], "finish": "stop"}, "in 100% of 10 groups all samples are one and the"),
    "no_answer": (
        lambda k: {"verdict": "no_answer", "accuracy": 0.0} if k % 8 != 1 else {},
        "no answer was found in 88% of 80 samples .the templates ask for it deepseek-r1: ",
    ),
    "no_format": (lambda k: {"format": 0.0}, "the format of deepseek-r1 is paid and never met, not even in part"),
    "verifier": (
        lambda k: {"accuracy": None, "verdict": "timeout", "reason": "5 s"} if k % 8 == 0 else {},
        r"the verifier failed on 10 of 80 samples \(10 timeout; 5 s\): raise reward.timeout_s or reward.workers",
    ),
    "length": (
        lambda k: {"ids": [50 + k, *[60] * 60, 2], "finish": "stop"},
        "62 of 64 tokens on average, and most",
    ),
    "end_tokens": (
        lambda k: {"ids": [50 + k, END_OF_TEXT_ID], "finish": "stop"} if k % 8 == 0 else {},
        r"the engine ends answers at <\|endoftext\|> \(0\), which is no end to the learner: add it to eos_token_id",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_answers_is_named_with_its_mend_and_no_other_is(
    tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    fault, words = FAULTS[name]
    [finding] = found(tokenizer, groups_of(tokenizer, fault))
    assert finding.name == name
    assert re.search(words, finding.text), finding.text


def test_a_token_that_ends_turns_and_is_no_end_token_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    endless = groups_of(tokenizer, lambda k: cut(k) | {"ids": [50 + k, END_OF_TEXT_ID, *[60] * (LONGEST - 2)]})
    [finding] = found(tokenizer, endless)
    assert finding.name == "no_end"
    assert "100% hold <|endoftext|> (0); add it to eos_token_id in its generation_config.json" in finding.text


def test_a_learner_near_the_end_of_its_memory_is_told_which_keys_need_less(tokenizer: PreTrainedTokenizerFast) -> None:
    [finding] = found(tokenizer, groups_of(tokenizer), memory_peak=15 * 2**30, memory_limit=16 * 2**30)
    assert finding == Finding(
        "memory",
        "the learner took 15.0 of 16.0 GiB: lower learner.token_budget (16384), or set learner.gradient_checkpointing",
    )


def test_on_a_shared_gpu_the_generators_share_is_not_the_learners(tokenizer: PreTrainedTokenizerFast) -> None:
    shared = config_of(placement={"learner_gpus": [0], "generator_gpus": [[0]]}, generator={"gpu_memory": 0.5})
    memory = {"memory_peak": 8 * 2**30, "memory_limit": 16 * 2**30}
    assert found(tokenizer, groups_of(tokenizer), **memory) == []
    [finding] = found(tokenizer, groups_of(tokenizer), shared, **memory)
    assert finding.text.startswith("the learner took 8.0 of 8.0 GiB")


def test_answers_that_could_not_be_given_within_their_deadline_are_foreseen(tokenizer: PreTrainedTokenizerFast) -> None:
    [finding] = found(tokenizer, groups_of(tokenizer, seconds=400.0))
    assert finding.name == "time"
    assert "would take 400 s at the pace that is seen" in finding.text
    assert "generator.group_deadline_s = 300 s: raise it to 800" in finding.text


def of_words(*words: str, bos: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer that knows these words alone, and cuts at blanks, which it forgets."""
    vocabulary = {word: id for id, word in enumerate(["<unk>", "<s>", "</s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]  # its stub has no setter
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", bos_token=bos)


def odd(tokenizer: PreTrainedTokenizerFast, prompt: list[int], **sections: Any) -> str:
    finding = found(tokenizer, groups_of(tokenizer, prompt=prompt), config_of(**sections))[0]
    assert finding.name == "odd_tokens"
    return finding.text


def test_words_that_the_tokenizer_does_not_know_are_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    text = odd(of_words("a", "b"), [3, 0, 0, 4])
    assert "prompts under deepseek-r1 are split oddly: 2 of its 4 tokens are '<unk>'" in text
    assert "set templates.chat to the format that the model was trained in" in text


def test_a_prompt_that_lost_its_templates_words_is_told(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = Renderer(tokenizer, "chatml").ids(TEMPLATE, PROBLEM)
    without = tokenizer.encode(str(tokenizer.decode(prompt)).replace(" ", ""), add_special_tokens=False)
    assert "decoded again, the prompt lacks the template's own words" in odd(tokenizer, without)


def test_a_mark_of_the_chat_format_that_is_no_token_of_the_model_is_told() -> None:
    other = build_tokenizer([TEMPLATE])
    prompt = other.encode(Renderer(other, "chatml").text(TEMPLATE, PROBLEM).replace("im_start", "begin"))
    assert "<|begin|> of the chat format is no token of this model: it becomes '<' '|' 'b' 'e'" in odd(other, prompt)


def test_a_tokenizer_that_cuts_prompts_into_single_characters_is_told(tokenizer: PreTrainedTokenizerFast) -> None:
    text = Renderer(tokenizer, "chatml").text(TEMPLATE, PROBLEM)
    prompt = tokenizer.convert_tokens_to_ids([c if c != " " else "Ġ" for c in text.replace("\n", "Ċ")])
    assert "tokens for" in odd(build_tokenizer([TEMPLATE]), [id for id in prompt if id is not None])


def test_a_token_that_begins_a_text_twice_or_never_is_told() -> None:
    begins = build_tokenizer([TEMPLATE])
    begins.add_special_tokens({"bos_token": "<s>"})
    begin = begins.convert_tokens_to_ids("<s>")
    begins.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])  # type: ignore[assignment]
    plain = Renderer(begins, "chatml").ids(TEMPLATE, PROBLEM)
    for prompt, words in (([begin, begin, *plain], "prompts begin with '<s>' twice"), (plain, "and prompts do not")):
        [finding] = found(begins, groups_of(begins, prompt=prompt))
        assert (finding.name, words in finding.text) == ("begin_token", True)
        assert "{{ bos_token }} once" in finding.text
    assert found(begins, groups_of(begins, prompt=[begin, *plain])) == []


def test_what_may_be_chance_is_not_judged(tokenizer: PreTrainedTokenizerFast) -> None:
    assert found(tokenizer, groups_of(tokenizer, lambda k: {"accuracy": 0.0}, number=7)) == []
    assert found(tokenizer, groups_of(tokenizer, FAULTS["no_answer"][0], number=1)) == []


def test_a_format_that_is_not_paid_need_not_be_met(tokenizer: PreTrainedTokenizerFast) -> None:
    unpaid = config_of(reward={"compose": "accuracy_only"})
    assert found(tokenizer, groups_of(tokenizer, FAULTS["no_format"][0]), unpaid) == []


def test_groups_that_dynamic_sampling_replaced_count(tokenizer: PreTrainedTokenizerFast) -> None:
    [finding] = found(tokenizer, groups_of(tokenizer), filtered={"all_wrong": 300})
    assert finding.name == "all_wrong"
    assert "97% of 310 groups" in finding.text


def test_every_threshold_is_a_key_and_1_turns_its_check_off(tokenizer: PreTrainedTokenizerFast) -> None:
    shares = ("truncated", "zero_spread", "same_answers", "no_answer", "no_format", "verifier_failures", "length")
    off = config_of(doctor=dict.fromkeys((*shares, "empty", "memory"), 1.0))
    for name in FAULTS.keys() - {"end_tokens"}:
        assert found(tokenizer, groups_of(tokenizer, FAULTS[name][0]), off) == [], name


# How the shipped small recipes begin: right, cut off, format, as docs/results.md has it.
BEGINNINGS = {
    "demo": (0.36, 0.0, 0.95),
    "demo_13_templates": (0.3, 0.0, 0.9),
    "demo_single_template": (0.36, 0.0, 0.95),
    "demo_questa": (0.05, 0.0, 0.95),
    "smollm2": (0.16, 0.59, 1.0),
    "smollm2_gpu": (0.07, 0.6, 0.42),
}


@pytest.mark.parametrize("recipe", BEGINNINGS)
def test_the_shipped_small_recipes_hear_nothing_of_how_they_begin(
    tokenizer: PreTrainedTokenizerFast, recipe: str
) -> None:
    right, cut_off, form = BEGINNINGS[recipe]
    draw = Random(0).random

    def begins(k: int) -> Answer:
        ends = cut(k) if draw() < cut_off else {}
        return ends | {"accuracy": float(draw() < right), "format": float(draw() < form)}

    config = load_config(ROOT / "recipes" / f"{recipe}.toml", [], {})
    assert found(tokenizer, groups_of(tokenizer, begins, number=24), config) == []


def test_the_exact_tokens_around_prompt_and_answer_are_printed(tokenizer: PreTrainedTokenizerFast) -> None:
    [group] = groups_of(tokenizer, number=1)
    lines = edges(tokenizer, group, 2)
    assert lines[0].startswith("prompt begins with '<|im_start|>':1 'system")
    assert lines[1].startswith("prompt ends with   ")
    assert lines[1].count(":") == 8
    assert lines[2].endswith("'<|im_end|>':2  (stop, 4 tokens)")
    cut_off = edges(tokenizer, group, 7)
    assert cut_off[3].endswith("  (length, 64 tokens)")
    assert cut_off[2].startswith("answer begins with ")


def test_the_learner_says_what_it_finds_once_and_only_in_its_first_steps(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    doctor = Doctor(config_of(doctor={"steps": 2}), tokenizer, {TEMPLATE.name: TEMPLATE})
    wrong, wordless = FAULTS["all_wrong"][0], FAULTS["no_answer"][0]
    with caplog.at_level(logging.INFO):
        [said] = doctor.look(1, groups_of(tokenizer, wrong), {}, {})
        assert said.startswith("step 1: 100% of 10 groups have one reward")
        assert doctor.look(2, groups_of(tokenizer, wrong), {}, {"memory_peak": None}) == []
        assert doctor.look(3, groups_of(tokenizer, wordless, number=40), {}, {}) == []
    assert "the tokens of a first answer: prompt begins with '<|im_start|>':1" in caplog.text


def test_the_learner_looks_on_until_there_are_groups_enough_to_judge(tokenizer: PreTrainedTokenizerFast) -> None:
    doctor = Doctor(config_of(doctor={"steps": 2}), tokenizer, {TEMPLATE.name: TEMPLATE})
    said = [doctor.look(step, groups_of(tokenizer, FAULTS["all_wrong"][0], number=2), {}, {}) for step in range(1, 6)]
    assert [len(found) for found in said] == [0, 0, 0, 1, 0]
    off = Doctor(config_of(doctor={"steps": 0}), tokenizer, {TEMPLATE.name: TEMPLATE})
    assert off.look(1, groups_of(tokenizer, FAULTS["all_wrong"][0]), {}, {}) == []
    resumed = Doctor(config_of(doctor={"steps": 2}), tokenizer, {TEMPLATE.name: TEMPLATE})
    assert resumed.look(20, groups_of(tokenizer, FAULTS["all_wrong"][0]), {}, {}) == []
