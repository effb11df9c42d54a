"""Problems and plain texts to prompts: few-shot variants, templates, tokens.

A prompt is tokenised whole, exactly as the tokenizer would give it; sharing is found later, in the
token ids, and so can never change a prompt.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydragen_kernels.arrays import Int32
from hydragen_tree.errors import InputError, Setting
from hydragen_tree.problem.types import Example, Problem
from hydragen_tree.prompt.few_shot import choose_examples
from hydragen_tree.prompt.prompt_lines import Messages, checked_content
from hydragen_tree.prompt.template import PLAIN_STOP, render_block, render_task
from hydragen_tree.prompt.tokenising import Tokenizer, encode, render_chat

_PROGRAM = "a Python 3 program that reads standard input and writes standard output"
_FUNCTION = "this in Python 3, with the names given"


@dataclass(frozen=True, eq=False, slots=True)
class Prompt:
    """What the model reads before it writes.

    Args:
        task_id: the problem's id.
        variant: which choice and order of few-shot examples, 0 .. V-1.
        token_ids: int32 `[tokens]`, read-only.
        stop: the template's stop strings.
        text: the text that was tokenised, when there was one.
        starter: code that the problem gives: imports, helpers, a function without a body.
        entry_point: the function that the problem's tests call.
    """

    task_id: str
    variant: int
    token_ids: Int32
    stop: tuple[str, ...]
    text: str | None = None
    starter: str = ""
    entry_point: str | None = None

    @property
    def sha256(self) -> str:
        """Hex digest of the token ids, as little-endian int32."""
        return hashlib.sha256(self.token_ids.astype("<i4").tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Draft:
    """A prompt that is not encoded yet."""

    task_id: str
    variant: int
    text: str
    stop: tuple[str, ...] = ()
    starter: str = ""
    entry_point: str | None = None
    is_chat: bool = False  # the template has put special tokens, which the tokenizer adds else


def build_prompts(
    problems: Sequence[Problem],
    tokenizer: Tokenizer,
    *,
    seed: int = 0,
    chat: bool = False,
    chat_options: Mapping[str, Any] | None = None,
    variants: int | None = None,
) -> list[Prompt]:
    """Every variant of every problem, tokenised whole.

    Args:
        problems: in the order in which they will be sampled.
        tokenizer: the model's.
        seed: decides which examples a variant shows, where their number is given.
        chat: render through the tokenizer's chat template instead of the plain one.
        chat_options: the template's own switches, such as `{"enable_thinking": False}`.
        variants: overrides the problems' own number of variants.

    Raises:
        InputError: more variants are asked for than choices exist, or the template has no such
            switch.
        ModelError: the tokenizer has no chat template, or cannot encode a text.
    """
    return prompts_from_sources(
        problems, tokenizer, seed=seed, chat=chat, chat_options=chat_options, variants=variants
    )


def longest_sequence(prompts: Sequence[Prompt], max_tokens: int) -> int:
    """Tokens of the longest sequence that a run of these prompts, of all shards, can have."""
    return max(len(prompt.token_ids) for prompt in prompts) + max_tokens


def prompts_from_sources(
    sources: Iterable[Any],
    tokenizer: Tokenizer,
    *,
    seed: int = 0,
    chat: bool = False,
    chat_options: Mapping[str, Any] | None = None,
    variants: int | None = None,
) -> list[Prompt]:
    """Prompts of anything that can be one.

    Args:
        sources: each a `Prompt` (kept), a `Problem`, a string, chat messages, token ids, or a
            pair (task id, one of the last three); without one, source i is called `prompt-i`.
        tokenizer: the model's.
        seed: see `build_prompts`.
        chat: render problems through the chat template; messages always are.
        chat_options: see `build_prompts`.
        variants: see `build_prompts`.

    Raises:
        InputError: a source is none of these, is empty, or has another's task id; `sources` is
            itself a string; there are chat options and no chat, or no such switch.
        ModelError: see `build_prompts`.
    """
    if isinstance(sources, str):
        raise InputError("prompts: got one text, expected a list of them")
    options = chat_options or {}
    prompts: list[Prompt | _Draft] = []
    for number, source in enumerate(sources):
        if isinstance(source, Prompt):
            prompts.append(source)
        elif isinstance(source, Problem):
            for variant, examples in enumerate(choose_examples(source, seed, variants)):
                prompts.append(_of_problem(source, variant, examples, tokenizer, chat, options))
        else:
            name, content = source if _is_pair(source) else (f"prompt-{number}", source)
            prompts.append(_of_content(name, content, tokenizer, options))
    if options and not any(isinstance(prompt, _Draft) and prompt.is_chat for prompt in prompts):
        raise InputError(
            "no prompt is a chat; give problems ",
            Setting("chat"),
            ", or prompts as messages",
            setting="chat_options",
        )
    names: set[tuple[str, int]] = set()
    for prompt in prompts:
        if (prompt.task_id, prompt.variant) in names:
            raise InputError(f"task id {prompt.task_id!r} comes twice, expected ids that differ")
        names.add((prompt.task_id, prompt.variant))
    return list(_encode_all(prompts, tokenizer))


def _of_content(
    name: str, content: Any, tokenizer: Tokenizer, options: Mapping[str, Any]
) -> Prompt | _Draft:
    try:
        checked = checked_content(content)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
    if isinstance(checked, str):
        return _Draft(name, 0, checked)
    if isinstance(checked, list):
        return _Draft(name, 0, render_chat(tokenizer, checked, name, options), is_chat=True)
    if checked.max() >= len(tokenizer):
        size = f"expected less than {len(tokenizer)}, the size of the vocabulary"
        raise InputError(f"{name}: token id {checked.max()}, {size}")
    return Prompt(name, 0, checked, ())


def _of_problem(
    problem: Problem,
    variant: int,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    chat: bool,
    options: Mapping[str, Any],
) -> _Draft:
    stop: tuple[str, ...] = ()
    if chat:
        text = render_chat(tokenizer, _messages(problem, examples), problem.id, options)
    else:
        blocks = [render_block(e.statement, e.samples, e.solution) for e in examples]
        blocks.append(render_block(problem.statement, problem.samples, None))
        text, stop = "\n\n".join(blocks), PLAIN_STOP
    return _Draft(problem.id, variant, text, stop, problem.starter, problem.entry_point, chat)


def _messages(problem: Problem, examples: Sequence[Example]) -> Messages:
    turns: Messages = []
    for example in examples:
        answer = f"```python\n{example.solution.strip()}\n```"
        turns.append({"role": "user", "content": _question(example)})
        turns.append({"role": "assistant", "content": answer})
    return [*turns, {"role": "user", "content": _question(problem)}]


def _question(task: Example | Problem) -> str:
    asked = _FUNCTION if any(test.is_function for test in task.tests) else _PROGRAM
    task_text = render_task(task.statement, task.samples)
    return f"{task_text}\n\nWrite {asked}. Answer with the code alone, in one ```python block."


def _encode_all(prompts: Sequence[Prompt | _Draft], tokenizer: Tokenizer) -> Iterator[Prompt]:
    encoded: dict[_Draft, Int32] = {}
    for is_chat in (True, False):
        drafts = [p for p in prompts if isinstance(p, _Draft) and p.is_chat is is_chat]
        names = [draft.task_id for draft in drafts]
        ids = encode(tokenizer, [draft.text for draft in drafts], names, special=not is_chat)
        encoded.update(zip(drafts, ids, strict=True))
    for prompt in prompts:
        if isinstance(prompt, _Draft):
            prompt = Prompt(
                prompt.task_id,
                prompt.variant,
                encoded[prompt],
                prompt.stop,
                prompt.text,
                prompt.starter,
                prompt.entry_point,
            )
        if not len(prompt.token_ids):
            raise InputError(f"{prompt.task_id}: the prompt has no tokens, expected at least one")
        yield prompt


def _is_pair(source: Any) -> bool:
    return isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], str)
