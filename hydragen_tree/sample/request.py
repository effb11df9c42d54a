"""What a prompt asks of an answer: code to go on with, a function to define, a language."""

import re
from dataclasses import dataclass
from functools import lru_cache

from hydragen_tree.sample.code_in_prose import unfinished_tail
from hydragen_tree.sample.markdown import CPP, PYTHON, open_fence, split_blocks
from hydragen_tree.sample.python_code import stub
from hydragen_tree.sample.python_syntax import is_comment
from hydragen_tree.sample.thoughts import ends_in_thought

_KEPT = 4096  # prompts whose reading is remembered
_NAMED = re.compile(r"(?:function|method)(?:,? (?:called|named))?\s+[`'\"](\w+)")
_NAME = r"(?:Python|C\+\+)[ ]?\d*(?:\.\d+)?"
_UNWANTED = re.compile(  # a language that is named to say that it is not wanted
    r"(?:\b(?:not?|never|without|avoid|instead of|rather than)|n't)"
    rf"(?: (?:use|using|write|be|in|with|a|any|it|valid))* {_NAME}"
    rf"|{_NAME} (?:is|are) (?:not|too|forbidden)\b",
    re.IGNORECASE,
)
_PYTHON_NAME = re.compile(r"python", re.IGNORECASE)
_INTO_CPP = re.compile(r"\b(?:in|to|into|use|using) C\+\+", re.IGNORECASE)
_INTO_PYTHON = re.compile(r"\b(?:in|to|into|use|using) python", re.IGNORECASE)
# What a chat's template puts around a turn, on its lines or at the edge of its text.
_TURN = re.compile(
    r"<\|[^|\n]{1,40}\|>(?:user|system)?|\[/?INST\]|</?s>|<(?:start|end)_of_turn>(?:user|model)?|<</?SYS>>"
)
_DEF = re.compile(r"^(?:async )?def \w", re.MULTILINE)
_AT_MARGIN = re.compile(r"^[^\s)\]}#]", re.MULTILINE)  # code or prose after a function
_STUBS = 4  # functions, from a prompt's end, that are looked at
_HALF_LINE = re.compile(r"[A-Za-z_@](?:.*[^:\s])?[ \t]*")
_STANDARD_INPUT = re.compile(r"standard input|\bstdin\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Request:
    """What a prompt asks for.

    Args:
        tail: the code that it ends with, which a completion may continue; empty if none.
        half: its last line, where no other code ends there and it has not ended: it may be the
            beginning of a statement, of which only the completion can tell.
        fence: the mark of the block that it leaves open; None if it leaves none open.
        language: of that block.
        starter: the code that a program must begin with or take the place of.
        asked: the function that tests call; None for a program, or where that is not known.
        languages: names of the language in which the answer should be.
        in_thought: the completion begins in a thought.
    """

    tail: str
    half: str
    fence: str | None
    language: str
    starter: str
    asked: str | None
    languages: frozenset[str]
    in_thought: bool


def plain(text: str) -> str:
    """A text without line ends of Windows and a byte-order mark."""
    return text.replace("\r\n", "\n").removeprefix("\ufeff")


@lru_cache(maxsize=_KEPT)
def read_prompt(prompt: str, starter: str, entry_point: str | None) -> Request:
    """Read what a prompt asks for.

    Args:
        prompt: its text; may be empty.
        starter: the code that its problem gives; by default what the prompt leaves open.
        entry_point: the function that tests call; by default the starter's, or one that is named.
    """
    prompt = plain(prompt)
    opened = open_fence(prompt)
    fence, language, tail = None, "", ""
    if opened is not None and _is_being_written(*opened[1:]):
        fence, language, tail = opened
    elif opened is None:
        tail = unfinished_tail(prompt)
    starter = starter or (tail if tail and stub(tail) else _stub_of(prompt))
    left_open = stub(starter) if starter else None
    asked = entry_point or (left_open[0] if left_open else None)
    if asked is None and not _STANDARD_INPUT.search(prompt):
        asked = next(reversed(_NAMED.findall(prompt)), None)
    return Request(
        tail=tail,
        half="" if tail or opened else _half_line(prompt),
        fence=fence,
        language=language,
        starter=starter,
        asked=asked,
        languages=CPP if _wants_cpp(prompt, language) else PYTHON,
        in_thought=ends_in_thought(prompt),
    )


def _half_line(prompt: str) -> str:
    """The line that a prompt ends in the middle of, unless it is no code or announces some."""
    line = prompt.rpartition("\n")[2]
    return line if _HALF_LINE.fullmatch(line) else ""


def _is_being_written(language: str, code: str) -> bool:
    """Whether an open block ends where a text does: what follows a chat's stray fence is prose."""
    if language not in ("", *PYTHON):
        return True
    whole, _, half = code.rpartition("\n")
    return is_comment(code) or unfinished_tail(code) == code or (bool(half) and is_comment(whole))


def _wants_cpp(prompt: str, language: str) -> bool:
    """Whether an answer should be C++: only that is spoken of, or it is what to write in."""
    if language or "C++" not in prompt:
        return language in CPP
    wanted = _UNWANTED.sub("", prompt)
    if _PYTHON_NAME.search(wanted) is None:
        return "C++" in wanted
    return _INTO_CPP.search(wanted) is not None and _INTO_PYTHON.search(wanted) is None


def _stub_of(prompt: str) -> str:
    """The last function that a prompt leaves open, in a block or without one; empty if none."""
    blocks = [block for block in split_blocks(prompt) if block.is_fenced and block.may_be_python]
    fenced = next((block.code for block in reversed(blocks) if stub(block.code)), "")
    return fenced or _stub_in_prose(_TURN.sub("\n", prompt))


def _stub_in_prose(text: str) -> str:
    """The last of the functions in a text that is left open, with the code before it."""
    for began in list(_DEF.finditer(text))[: -_STUBS - 1 : -1]:
        after = _AT_MARGIN.search(text, began.end())
        end = after.start() if after else len(text)
        tail = unfinished_tail(text[:end].rstrip() + "\n")
        if tail and stub(tail):
            return tail.lstrip("\n")
    return ""
