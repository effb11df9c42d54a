"""Problems and plain texts to prompts: few-shot variants, templates, tokens.

A prompt is tokenised whole, exactly as the tokenizer would give it; sharing is found later, in the
token ids, and so can never change a prompt.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.encoding import Tokenizer, encode, packed, render_chat
from hydragen_tree.errors import InputError
from hydragen_tree.problem import Example, Problem
from hydragen_tree.template import PLAIN_STOP, render_block, render_task

_FENCE = re.compile(r"^```[ \t]*(\w*)[^\n]*\n(.*?)(?:^```|\Z)", re.MULTILINE | re.DOTALL)
_MAX_ID = 2**31 - 1
_PROGRAM = "a Python 3 program that reads standard input and writes standard output"
_FUNCTION = "this in Python 3, with the names given"
Messages = list[Mapping[str, Any]]


@dataclass(frozen=True, eq=False, slots=True)
class Prompt:
    """What the model reads before it writes.

    Args:
        task_id: the problem's id.
        variant: which choice and order of few-shot examples, 0 .. V-1.
        token_ids: int32 `[tokens]`, read-only.
        stop: the template's stop strings.
        text: the text that was tokenised, when there was one.
    """

    task_id: str
    variant: int
    token_ids: NDArray[np.int32]
    stop: tuple[str, ...]
    text: str | None = None

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
    special: bool = True  # the tokenizer adds its special tokens; a chat template has done so


def build_prompts(
    problems: Sequence[Problem],
    tokenizer: Tokenizer,
    *,
    seed: int = 0,
    chat: bool = False,
    variants: int | None = None,
) -> list[Prompt]:
    """Every variant of every problem, tokenised whole.

    Args:
        problems: in the order in which they will be sampled.
        tokenizer: the model's.
        seed: decides which examples a variant shows, where their number is given.
        chat: render through the tokenizer's chat template instead of the plain one.
        variants: overrides the problems' own number of variants.

    Raises:
        InputError: more variants are asked for than choices exist.
        ModelError: the tokenizer has no chat template, or cannot encode a text.
    """
    return prompts_from_sources(problems, tokenizer, seed=seed, chat=chat, variants=variants)


def prompts_from_sources(
    sources: Iterable[Any],
    tokenizer: Tokenizer,
    *,
    seed: int = 0,
    chat: bool = False,
    variants: int | None = None,
) -> list[Prompt]:
    """Prompts of anything that can be one.

    Args:
        sources: each a `Prompt` (kept), a `Problem`, a string, chat messages, token ids, or a
            pair (task id, one of the last three); without one, source i is called `prompt-i`.
        tokenizer: the model's.
        seed: see `build_prompts`.
        chat: render problems through the chat template; messages always are.
        variants: see `build_prompts`.

    Raises:
        InputError: a source is none of these, is empty, or has another's task id; or `sources`
            is itself a string.
        ModelError: see `build_prompts`.
    """
    if isinstance(sources, str):
        raise InputError("prompts: got one text, expected a list of them")
    prompts: list[Prompt | _Draft] = []
    for number, source in enumerate(sources):
        if isinstance(source, Prompt):
            prompts.append(source)
        elif isinstance(source, Problem):
            for variant, examples in enumerate(choose_examples(source, seed, variants)):
                prompts.append(_of_problem(source, variant, examples, tokenizer, chat))
        else:
            name, content = source if _is_pair(source) else (f"prompt-{number}", source)
            prompts.append(_of_content(name, content, tokenizer))
    names: set[tuple[str, int]] = set()
    for prompt in prompts:
        if (prompt.task_id, prompt.variant) in names:
            raise InputError(f"task id {prompt.task_id!r} comes twice, expected ids that differ")
        names.add((prompt.task_id, prompt.variant))
    return list(_encode_all(prompts, tokenizer))


def choose_examples(
    problem: Problem, seed: int, variants: int | None = None
) -> list[tuple[Example, ...]]:
    """The examples of each variant, in order.

    Where only their number is given, they are drawn, and the draws do not depend on the problem:
    problems with one pool share the beginnings of their prompts. More variants only add to fewer.
    A problem that is in its own pool is passed over.

    Raises:
        InputError: other than 1 to as many variants as there are distinct choices are asked for.
    """
    few_shot, pool = problem.few_shot, problem.examples
    if few_shot is None:
        _check_count(problem, 1 if variants is None else variants, 1, "it has no few_shot")
        return [()]
    if isinstance(few_shot.variants, int):
        count = few_shot.variants if variants is None else variants
        held = f"{few_shot.shots} of {len(pool)} examples other than itself, in order"
        _check_count(problem, count, math.perm(len(pool), few_shot.shots), held)
        return _draw(pool, few_shot.shots, count, seed)
    count = len(few_shot.variants) if variants is None else variants
    _check_count(problem, count, len(few_shot.variants), "those it lists")
    by_id = {example.id: example for example in pool}
    return [tuple(by_id[name] for name in choice) for choice in few_shot.variants[:count]]


def read_prompt_lines(lines: Iterable[str]) -> list[tuple[str, Any]]:
    """Reads `{"prompt": text | messages | token ids, "task_id": ...}` lines.

    Blank lines and further keys are passed over; without an id, prompt i is called `prompt-i`.

    Returns:
        (task id, prompt) of every line, as `prompts_from_sources` takes them.

    Raises:
        InputError: lines are broken (all are named, by number), or there is none.
    """
    found: dict[str, Any] = {}
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            task_id, content = _parse_line(line, default=f"prompt-{len(found)}")
            if task_id in found:
                raise ValueError(f"task_id {task_id!r} comes twice, expected ids that differ")
            found[task_id] = content
        except ValueError as error:
            faults.append(f"--prompts: line {number}: {error}")
    if faults:
        raise InputError("\n".join(faults))
    if not found:
        raise InputError('--prompts: no prompts, expected lines such as {"prompt": "..."}')
    return list(found.items())


def extract_solution(completion: str) -> str:
    """The program in a completion.

    Its last fenced block of Python if it has any, else its last fenced block without a language,
    else all of it. A block that was cut off ends with the text.
    """
    blocks = _FENCE.findall(completion)
    python = [code for language, code in blocks if language.lower() in ("python", "python3", "py")]
    bare = [code for language, code in blocks if not language]
    code: str = [completion, *bare, *python][-1]
    return code.rstrip() + "\n"


def _parse_line(line: str, default: str) -> tuple[str, Any]:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(record, dict) or "prompt" not in record:
        raise ValueError('expected an object with the key "prompt"')
    task_id = record.get("task_id", default)
    if not isinstance(task_id, str) or not task_id:
        raise ValueError(f"task_id: got {task_id!r}, expected text")
    return task_id, _checked(record["prompt"])


def _checked(content: Any) -> str | Messages | NDArray[np.int32]:
    """Text, messages or token ids; a ValueError for anything else, and for what is empty."""
    expected = "expected text, messages with a role each, or token ids from 0 on"
    if not isinstance(content, Sequence | np.ndarray) or isinstance(content, bytes):
        raise ValueError(f"got {type(content).__name__}, {expected}")
    if not len(content):
        raise ValueError(f"the prompt is empty, {expected}")
    if isinstance(content, str):
        return content
    if all(isinstance(item, Mapping) and isinstance(item.get("role"), str) for item in content):
        return list(content)
    if all((type(i) is int or isinstance(i, np.integer)) and i >= 0 for i in content):
        if max(content) > _MAX_ID:
            raise ValueError(f"token id {max(content)}, expected less than {_MAX_ID + 1}")
        return packed(content)  # Python integers take ten times the memory
    raise ValueError(f"got a list of other things, {expected}")


def _of_content(name: str, content: Any, tokenizer: Tokenizer) -> Prompt | _Draft:
    try:
        checked = _checked(content)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
    if isinstance(checked, str):
        return _Draft(name, 0, checked)
    if isinstance(checked, list):
        return _Draft(name, 0, render_chat(tokenizer, checked, name), special=False)
    if checked.max() >= len(tokenizer):
        size = f"expected less than {len(tokenizer)}, the size of the vocabulary"
        raise InputError(f"{name}: token id {checked.max()}, {size}")
    return Prompt(name, 0, checked, ())


def _of_problem(
    problem: Problem, variant: int, examples: Sequence[Example], tokenizer: Tokenizer, chat: bool
) -> _Draft:
    if chat:
        text = render_chat(tokenizer, _messages(problem, examples), problem.id)
        return _Draft(problem.id, variant, text, special=False)
    blocks = [render_block(e.statement, e.samples, e.solution) for e in examples]
    text = "\n\n".join([*blocks, render_block(problem.statement, problem.samples, None)])
    return _Draft(problem.id, variant, text, PLAIN_STOP)


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
    encoded: dict[_Draft, NDArray[np.int32]] = {}
    for special in (False, True):
        drafts = [p for p in prompts if isinstance(p, _Draft) and p.special is special]
        names = [draft.task_id for draft in drafts]
        ids = encode(tokenizer, [draft.text for draft in drafts], names, special=special)
        encoded.update(zip(drafts, ids, strict=True))
    for prompt in prompts:
        if isinstance(prompt, _Draft):
            prompt = Prompt(
                prompt.task_id, prompt.variant, encoded[prompt], prompt.stop, prompt.text
            )
        if not len(prompt.token_ids):
            raise InputError(f"{prompt.task_id}: the prompt has no tokens, expected at least one")
        yield prompt


def _draw(pool: Sequence[Example], shots: int, count: int, seed: int) -> list[tuple[Example, ...]]:
    """`count` distinct ordered choices: each draw ranks the pool by a hash of seed, draw and id.

    Without one example, the others keep their ranks.
    """
    chosen: dict[tuple[str, ...], tuple[Example, ...]] = {}
    for draw in itertools.count():
        if len(chosen) == count:
            break
        ranks = {e.id: hashlib.sha256(f"{seed}/{draw}/{e.id}".encode()).digest() for e in pool}
        choice = tuple(sorted(pool, key=lambda example: ranks[example.id])[:shots])
        chosen.setdefault(tuple(example.id for example in choice), choice)
    return list(chosen.values())


def _check_count(problem: Problem, count: int, possible: int, held: str) -> None:
    if not 1 <= count <= possible:
        name = problem.source or problem.id
        expected = f"expected 1 to {possible}: {held}" if possible else f"there is none: {held}"
        raise InputError(f"{name}: few_shot.variants: {count} asked for, {expected}")


def _is_pair(source: Any) -> bool:
    return isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], str)
