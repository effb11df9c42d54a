"""Prompts: the template, the choice of examples, and tokens as the tokenizer gives them."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from hydragen_tree.errors import InputError, ModelError
from hydragen_tree.prompt.few_shot import choose_examples
from hydragen_tree.prompt.prompts import Prompt, build_prompts, prompts_from_sources
from hydragen_tree.prompt.template import render_block
from tests.prompt.summing import problem

POOL = [
    {
        "id": name,
        "statement": f"Print {name}.",
        "tests": [
            {"input": "", "output": f"{name}\n", "sample": True},
            {"input": "hidden\n", "output": "hidden\n"},
        ],
        "solution": f"print('{name}')\n",
    }
    for name in "abcde"
]


@pytest.fixture(scope="module")
def letters() -> PreTrainedTokenizerFast:
    """Knows a few letters, and says <unk> to the rest."""
    core = Tokenizer(models.BPE(vocab={"<unk>": 0, "a": 1, "b": 2}, merges=[], unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", name_or_path="letters")


def ids(choices: list[tuple[Any, ...]]) -> list[tuple[str, ...]]:
    return [tuple(example.id for example in choice) for choice in choices]


# --- the plain template ---


def test_block_to_the_letter() -> None:
    assert render_block(" Add.\n", [("1 2\n", "3\n"), ("", "x\n\n")], "\nprint(3)\n") == (
        "### Problem\nAdd.\n\nInput:\n1 2\nOutput:\n3\n\nInput:\n\nOutput:\nx\n\n\n"
        "### Solution\n```python\nprint(3)\n```"
    )
    assert render_block("Add.", [], None) == "### Problem\nAdd.\n\n### Solution\n```python\n"


def test_prompt_to_the_letter(tokenizer: PreTrainedTokenizerFast) -> None:
    few_shot = {"pool": POOL, "variants": [["b"], []]}
    one, zero = build_prompts([problem(few_shot=few_shot)], tokenizer)
    question = (
        "### Problem\nSolve sum.\n\nInput:\n1 2\nOutput:\n3\n\nInput:\n5 6\nOutput:\n11\n\n"
        "### Solution\n```python\n"
    )
    shown = (
        "### Problem\nPrint b.\n\nInput:\n\nOutput:\nb\n\n### Solution\n```python\nprint('b')\n```"
    )
    assert one.text == f"{shown}\n\n{question}"
    assert zero.text == question
    assert (one.task_id, one.variant, zero.variant) == ("sum", 0, 1)
    assert one.stop == ("\n```",)


# --- the choice of examples ---


def test_explicit_choices_and_how_many_of_them() -> None:
    few_shot = {"pool": POOL, "variants": [["a", "b"], ["b", "a"], []]}
    p = problem(few_shot=few_shot)
    assert ids(choose_examples(p, seed=0)) == [("a", "b"), ("b", "a"), ()]
    assert ids(choose_examples(p, seed=9, variants=2)) == [("a", "b"), ("b", "a")]
    with pytest.raises(InputError, match="4 asked for, expected 1 to 3: those it lists"):
        choose_examples(p, seed=0, variants=4)


@given(st.integers(0, 5), st.integers(0, 2**63 - 1), st.data())
def test_drawn_choices_are_distinct_and_stable(shots: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, min(math.perm(5, shots), 30)))
    p = problem(few_shot={"pool": POOL, "shots": shots, "variants": count})
    chosen = ids(choose_examples(p, seed))
    assert len(set(chosen)) == len(chosen) == count
    assert all(len(set(choice)) == len(choice) == shots for choice in chosen)
    assert ids(choose_examples(p, seed)) == chosen
    fewer = data.draw(st.integers(1, count))
    assert ids(choose_examples(p, seed, fewer)) == chosen[:fewer]


def test_every_choice_can_be_drawn_and_no_more() -> None:
    p = problem(few_shot={"pool": POOL, "shots": 2})
    assert set(ids(choose_examples(p, 0, 20))) == set(itertools.permutations("abcde", 2))
    with pytest.raises(
        InputError, match=r"sum: few_shot\.variants: 21 asked for, expected 1 to 20"
    ):
        choose_examples(p, 0, 21)


def test_choices_depend_on_the_seed_and_not_on_the_problem() -> None:
    few_shot = {"pool": POOL, "shots": 2, "variants": 4}
    one, other = problem("one", few_shot=few_shot), problem("other", few_shot=few_shot)
    assert ids(choose_examples(one, 1)) == ids(choose_examples(other, 1))
    assert len({tuple(ids(choose_examples(one, seed))) for seed in range(20)}) == 20


def test_draws_do_not_change_from_version_to_version() -> None:
    p = problem(few_shot={"pool": POOL, "shots": 2, "variants": 4})
    assert ids(choose_examples(p, seed=0)) == [("e", "d"), ("c", "e"), ("d", "e"), ("d", "c")]


def test_no_problem_is_its_own_example() -> None:
    few_shot = {"pool": POOL, "shots": 2, "variants": 12}
    by_id = problem("c", few_shot=few_shot)
    by_statement = problem("x", statement="  Print c.\n", few_shot=few_shot)
    expected = set(itertools.permutations("abde", 2))
    assert set(ids(choose_examples(by_id, 0))) == expected
    assert ids(choose_examples(by_statement, 0)) == ids(choose_examples(by_id, 0))
    with pytest.raises(InputError, match="13 asked for, expected 1 to 12: 2 of 4 examples other"):
        choose_examples(by_id, 0, 13)
    all_five = problem("c", few_shot={"pool": POOL, "shots": 5})
    with pytest.raises(InputError, match="1 asked for, there is none: 5 of 4 examples"):
        choose_examples(all_five, 0)


def test_without_examples_there_is_one_variant(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(build_prompts([problem()], tokenizer, variants=1)) == 1
    for variants in (0, 2, -1):
        with pytest.raises(InputError, match=f"{variants} asked for, expected 1 to 1: it has no"):
            build_prompts([problem()], tokenizer, variants=variants)


def test_problems_with_one_pool_share_their_beginnings(tokenizer: PreTrainedTokenizerFast) -> None:
    few_shot = {"pool": POOL, "shots": 3, "variants": 3}
    problems = [problem("one", few_shot=few_shot), problem("other", few_shot=few_shot)]
    prompts = build_prompts(problems, tokenizer, seed=5)
    for one, other in zip(prompts[:3], prompts[3:], strict=True):
        same = one.token_ids[: min(len(one.token_ids), len(other.token_ids))]
        common = int(np.argmin(same == other.token_ids[: len(same)]))
        assert common > 0.6 * len(same)


# --- tokens ---


def test_tokens_are_those_of_the_whole_text(tokenizer: PreTrainedTokenizerFast) -> None:
    few_shot = {"pool": POOL, "shots": 2, "variants": 3}
    problems = [problem("one", few_shot=few_shot), problem("ångström 😀", id="two")]
    prompts = build_prompts(problems, tokenizer)
    assert [(p.task_id, p.variant) for p in prompts] == [
        *(("one", v) for v in range(3)),
        ("two", 0),
    ]
    for prompt in prompts:
        assert prompt.token_ids.tolist() == tokenizer(prompt.text)["input_ids"]
        assert prompt.token_ids[0] == tokenizer.bos_token_id
        assert prompt.token_ids.dtype == np.int32
        with pytest.raises(ValueError, match="read-only"):
            prompt.token_ids[0] = 1


def test_a_text_that_begins_with_bos_has_one(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="hydragen_tree"):  # whatever a command has set
        plain, begun, third = prompts_from_sources(["x = 1", "<bos>x = 1", "<bos>y"], tokenizer)
    assert begun.token_ids.tolist() == plain.token_ids.tolist()
    assert third.token_ids.tolist().count(tokenizer.bos_token_id) == 1
    (said,) = caplog.messages
    assert "no second one is added" in said


def test_more_prompts_than_a_batch_keep_their_order(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [f"number {i}" for i in range(2500)]
    prompts = prompts_from_sources(texts, tokenizer)
    assert [prompt.text for prompt in prompts] == texts
    assert prompts[2400].token_ids.tolist() == tokenizer(texts[2400])["input_ids"]
    assert prompts[2400].task_id == "prompt-2400"


def test_sha256_is_of_the_tokens() -> None:
    one, same, other = (
        Prompt(name, 0, np.array(tokens, kind), ())
        for name, tokens, kind in (
            ("a", [1, 2], np.int32),
            ("b", [1, 2], np.dtype(">i4")),
            ("a", [2, 1], np.int32),
        )
    )
    assert one.sha256 == same.sha256 != other.sha256
    assert len(one.sha256) == 64


def test_a_text_with_unknown_characters_is_refused(letters: PreTrainedTokenizerFast) -> None:
    assert prompts_from_sources(["abba"], letters)[0].token_ids.tolist() == [1, 2, 2, 1]
    with pytest.raises(ModelError, match=r"^prompt-1: the tokenizer of letters cannot encode 'ö' "):
        prompts_from_sources(["ab", "aböba", "bz"], letters)


def test_a_text_that_makes_the_tokenizer_fail_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(
        ModelError, match=r"^prompt-1: the tokenizer of bytes cannot encode '\\ud800'"
    ):
        prompts_from_sources(["fine", "half a \ud800 pair"], tokenizer)


def test_an_unknown_token_that_doubles_as_bos_is_no_complaint() -> None:
    core = Tokenizer(models.BPE(vocab={"<s>": 0, "a": 1}, merges=[]))
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    both = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", unk_token="<s>")
    assert prompts_from_sources(["aa"], both)[0].token_ids.tolist() == [0, 1, 1]


# --- chat ---


def test_chat_turns_to_the_letter(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    few_shot = {"pool": POOL, "variants": [["b"]]}
    (prompt,) = build_prompts([problem(few_shot=few_shot)], chat_tokenizer, chat=True)
    ask = (
        "Write a Python 3 program that reads standard input and writes standard output. "
        "Answer with the code alone, in one ```python block."
    )
    assert prompt.text == (
        f"<bos>user: Print b.\n\nInput:\n\nOutput:\nb\n\n{ask}<eos>"
        "<bos>assistant: ```python\nprint('b')\n```<eos>"
        "<bos>user: Solve sum.\n\nInput:\n1 2\nOutput:\n3\n\nInput:\n5 6\nOutput:\n11\n\n"
        f"{ask}<eos>"
        "<bos>assistant: "
    )
    assert prompt.stop == ()


def test_chat_for_functions_asks_for_a_function(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    functions = problem(tests=[{"call": [1], "expected": 2}], entry_point="f")
    (prompt,) = build_prompts([functions], chat_tokenizer, chat=True)
    assert prompt.text is not None
    assert "standard input" not in prompt.text
    assert "names given" in prompt.text


def test_chat_tokens_are_those_of_the_template(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    (prompt,) = prompts_from_sources([messages], chat_tokenizer)
    encoded = chat_tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert prompt.token_ids.tolist() == encoded["input_ids"]
    assert prompt.token_ids.tolist().count(chat_tokenizer.bos_token_id) == 2


def test_a_tokenizer_without_template_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(
        ModelError, match=r"^sum: the tokenizer of bytes has no chat template; choose"
    ):
        build_prompts([problem()], tokenizer, chat=True)
    with pytest.raises(ModelError, match=r"^prompt-0: the tokenizer of bytes has no chat template"):
        prompts_from_sources([[{"role": "user", "content": "Hi"}]], tokenizer)


def test_a_templates_own_switches_are_passed_to_it(
    chat_tokenizer: PreTrainedTokenizerFast,
) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    options = {"enable_thinking": False, "effort": "low"}
    for sources in ([problem()], [messages]):
        (plain,) = prompts_from_sources(sources, chat_tokenizer, chat=True)
        (switched,) = prompts_from_sources(sources, chat_tokenizer, chat=True, chat_options=options)
        assert plain.text is not None
        assert switched.text == f"{plain.text}<think></think>low"
    with pytest.raises(InputError, match=r"chat_options enable_thnking: .*mean enable_thinking\?"):
        build_prompts(
            [problem()], chat_tokenizer, chat=True, chat_options={"enable_thnking": False}
        )
    with pytest.raises(InputError, match=r"chat_options tokenize: .* no such switch"):
        build_prompts([problem()], chat_tokenizer, chat=True, chat_options={"tokenize": True})
    with pytest.raises(InputError, match="chat_options: no prompt is a chat"):
        build_prompts([problem()], chat_tokenizer, chat_options=options)


def test_a_template_that_refuses_is_named(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ModelError, match=r"^x: the chat template of chatty refuses .*no system"):
        prompts_from_sources([("x", [{"role": "system", "content": "Hi"}])], chat_tokenizer)
