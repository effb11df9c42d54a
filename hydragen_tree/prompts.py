"""Problems and plain texts to prompts: few-shot variants, templates, tokens.

A prompt is tokenised whole, exactly as the tokenizer would give it; sharing is found later, in the
token ids, and so can never change a prompt.
"""

import hashlib
import json
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.errors import InputError, ModelError
from hydragen_tree.problem import Example, Problem
from hydragen_tree.template import PLAIN_STOP, render_block

_FENCED = re.compile(r"^```(?:python|py)?[ ]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INSTRUCTION = (
    "Write a Python 3 program that solves this. It reads standard input and writes standard "
    "output. Answer with the program alone, in one ```python block."
)


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    unk_token_id: int | None

    def __call__(self, text: list[str], *, add_special_tokens: bool = True) -> Any:
        """Encodes texts; `["input_ids"]` holds a list of ids each."""

    def __len__(self) -> int:
        """Number of tokens."""

    def apply_chat_template(
        self, conversation: list[Any], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """Renders messages."""


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


def extract_solution(completion: str) -> str:
    """The program in a completion: its last fenced block if it has any, else all of it."""
    blocks = _FENCED.findall(completion)
    code = blocks[-1] if blocks else completion
    return code.rstrip() + "\n"


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
    if chat and not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            "--chat: the model's tokenizer has no chat template; sample without --chat"
        )
    names: list[tuple[str, int]] = []
    texts: list[str] = []
    for problem in problems:
        for variant, examples in enumerate(choose_examples(problem, seed, variants)):
            names.append((problem.id, variant))
            render = _chat_text if chat else _plain_text
            texts.append(render(problem, examples, tokenizer))
    stop = () if chat else PLAIN_STOP
    encoded = _encode(tokenizer, texts, special=not chat)
    return [
        Prompt(task, variant, ids, stop, text)
        for (task, variant), ids, text in zip(names, encoded, texts, strict=True)
    ]


def choose_examples(
    problem: Problem, seed: int, variants: int | None = None
) -> list[tuple[Example, ...]]:
    """The examples of each variant, in order; deterministic in the seed and the problem's id.

    Raises:
        InputError: more variants are asked for than distinct choices exist.
    """
    few_shot = problem.few_shot
    if few_shot is None:
        return [()]
    if isinstance(few_shot.variants, tuple) and variants is None:
        by_id = {example.id: example for example in few_shot.pool}
        return [tuple(by_id[name] for name in choice) for choice in few_shot.variants]
    pool = [example for example in few_shot.pool if example.statement != problem.statement]
    count = variants if variants is not None else few_shot.variants
    assert isinstance(count, int)
    possible = math.perm(len(pool), few_shot.shots)
    if not 1 <= count <= possible:
        raise InputError(
            f"{problem.source or problem.id}: few_shot.variants: {count} asked for; expected 1 to "
            f"{possible}, the ordered choices of {few_shot.shots} from {len(pool)} examples"
        )
    rng = random.Random(f"{seed}/{problem.id}")
    chosen: dict[tuple[str, ...], tuple[Example, ...]] = {}
    while len(chosen) < count:
        choice = tuple(rng.sample(pool, few_shot.shots))
        chosen.setdefault(tuple(example.id for example in choice), choice)
    return list(chosen.values())


def prompts_from_sources(
    sources: Iterable[Any], tokenizer: Tokenizer, *, seed: int = 0, chat: bool = False
) -> list[Prompt]:
    """Prompts of anything that can be one.

    Args:
        sources: each a `Prompt` (kept), a `Problem`, a string, chat messages, token ids, or a
            pair (task id, one of the last three).
        tokenizer: the model's.
        seed: see `build_prompts`.
        chat: render problems through the chat template.

    Raises:
        InputError: a source is none of these, or empty.
    """
    prompts: list[Prompt] = []
    for number, source in enumerate(sources):
        if isinstance(source, Prompt):
            prompts.append(source)
        elif isinstance(source, Problem):
            prompts += build_prompts([source], tokenizer, seed=seed, chat=chat)
        else:
            task, content = source if _is_named(source) else (f"prompt-{number}", source)
            prompts.append(_prompt(task, content, tokenizer))
    return prompts


def read_prompt_lines(lines: Iterable[str]) -> list[tuple[str, Any]]:
    """Reads `{"prompt": text | messages | token ids, "task_id": ...}` lines.

    Raises:
        InputError: a line is broken (named by its number), an id comes twice, or there is none.
    """
    found: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"--prompts: line {number}: not valid JSON: {error.msg}") from None
        if not isinstance(record, dict) or "prompt" not in record:
            raise InputError(f'--prompts: line {number}: expected an object with "prompt"')
        task = str(record.get("task_id", f"prompt-{len(found)}"))
        if task in found:
            raise InputError(f"--prompts: line {number}: task_id {task!r} comes twice")
        found[task] = record["prompt"]
    if not found:
        raise InputError("--prompts: no prompts; expected at least one line")
    return list(found.items())


def _is_named(source: Any) -> bool:
    return isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], str)


def _prompt(task: str, content: Any, tokenizer: Tokenizer) -> Prompt:
    if isinstance(content, str):
        if not content:
            raise InputError(f"{task}: the prompt is empty; expected some text")
        (ids,) = _encode(tokenizer, [content], special=True)
        return Prompt(task, 0, ids, (), content)
    items = list(content) if isinstance(content, Sequence | np.ndarray) else []
    if not items:
        raise InputError(f"{task}: the prompt is empty; expected text, messages or ids")
    if all(isinstance(item, Mapping) for item in items):
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(f"{task}: chat messages, but the tokenizer has no chat template")
        text = tokenizer.apply_chat_template(items, tokenize=False, add_generation_prompt=True)
        (ids,) = _encode(tokenizer, [text], special=False)
        return Prompt(task, 0, ids, (), text)
    if not all(isinstance(item, int | np.integer) and item >= 0 for item in items):
        raise InputError(f"{task}: expected text, a list of messages, or a list of token ids")
    if max(items) >= len(tokenizer):
        raise InputError(f"{task}: token id {max(items)}; the tokenizer has {len(tokenizer)}")
    return Prompt(task, 0, _frozen(items), ())


def _plain_text(problem: Problem, examples: Sequence[Example], tokenizer: Tokenizer) -> str:
    del tokenizer  # the plain template needs none
    blocks = [render_block(e.statement, _shown(e), e.solution) for e in examples]
    return "\n\n".join([*blocks, render_block(problem.statement, problem.samples, None)])


def _chat_text(problem: Problem, examples: Sequence[Example], tokenizer: Tokenizer) -> str:
    messages: list[dict[str, str]] = []
    for example in examples:
        messages.append({"role": "user", "content": _question(example.statement, _shown(example))})
        answer = f"```python\n{example.solution.strip()}\n```"
        messages.append({"role": "assistant", "content": answer})
    messages.append({"role": "user", "content": _question(problem.statement, problem.samples)})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _question(statement: str, samples: Sequence[tuple[str, str]]) -> str:
    block = render_block(statement, samples, None)
    body = block.removeprefix("### Problem\n").removesuffix("\n\n### Solution\n```python\n")
    return f"{body}\n\n{_INSTRUCTION}"


def _shown(example: Example) -> list[tuple[str, str]]:
    return [(test.input, test.output) for test in example.tests if test.sample]


def _encode(tokenizer: Tokenizer, texts: list[str], *, special: bool) -> list[NDArray[np.int32]]:
    """Tokenises whole texts in one call.

    Raises:
        ModelError: a text has something that the tokenizer cannot express.
    """
    ids = tokenizer(texts, add_special_tokens=special)["input_ids"]
    unknown = tokenizer.unk_token_id
    for text, tokens in zip(texts, ids, strict=True):
        if unknown is not None and unknown in tokens:
            odd = next((c for c in text if unknown in tokenizer([c])["input_ids"][0]), text[:20])
            raise ModelError(f"the tokenizer cannot encode {odd!r}; choose another model")
    return [_frozen(tokens) for tokens in ids]


def _frozen(tokens: Sequence[int]) -> NDArray[np.int32]:
    array = np.array(tokens, np.int32)
    array.flags.writeable = False
    return array
