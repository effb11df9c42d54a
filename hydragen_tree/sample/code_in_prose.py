"""Where a program begins and ends in a text that is not all program."""

import ast
import keyword
import re
import textwrap
from itertools import islice

from hydragen_tree.sample.notations import meant
from hydragen_tree.sample.python_code import read_code
from hydragen_tree.sample.python_syntax import (
    BODIES,
    begins_as_prose,
    compiled,
    goes_on,
    is_incomplete,
    is_open_block,
    is_real,
    line_of_error,
    mentioned,
)

_TRIES = 24  # ends, or beginnings, of a program in prose that are tried
_WORDS = re.compile(r"\[?[A-Za-z_][\w.:, ]*\]?$")  # a line of a program may be that too
_INDENTED = re.compile(r"(?:[ \t]*(?:#[^\r\n]*)?\n)*[ \t]+[^\s#\\]")  # its first statement is
_INDENTED_PARAGRAPH = re.compile(r"^\S.*\n\n((?:(?: {4}|\t).*\n?|\n)+)", re.MULTILINE)
_SPAN = re.compile(r"`+")  # what begins and ends code in a line of prose
_ADDED = re.compile(r"(?:^\+.*\n?)+", re.MULTILINE)  # lines of a difference between files
_BEGINNING = re.compile(
    r"(?:from|import|def|async|class)\s+\w|@\w|(?:for|while|if|with)\b.*:|try:|print\(|#"
    r"|[A-Za-z_][\w.]*(?:\s*,\s*[A-Za-z_]\w*)*\s*(?::\s*\w+\s*)?=(?!=)|[a-z_]\w*\("
)


def longest_program(head: str, text: str) -> str | None:
    """The longest beginning of a text, in lines, that continues a program.

    Prose and half a statement at its end are left out; what is left must do something.

    Args:
        head: the program so far, up to the middle of a line or a function.
        text: what may continue it.

    Returns:
        The part of `text`, or None if not even its first statement belongs to the program.
    """
    if (not text and head.endswith("\n")) or begins_as_prose(head, text):
        return None
    if _INDENTED.match(text) and is_open_block(head) and goes_on(head, text):
        return text  # the block that the head ends in has gained a statement
    lines = text.split("\n")
    end = len(lines)
    for _ in range(_TRIES):
        fault = line_of_error(head + "\n".join(lines[:end]))
        if fault is None:
            break
        # What a fault breaks began at the left margin, at or before it.
        end = min(fault - head.count("\n") - 1, end - 1)
        while end > 0 and not re.match(r"[^\s)\]}]", lines[end]):
            end -= 1
        if end <= 0:
            return None
    else:
        return None
    tree = compiled(head + "\n".join(lines[:end]))
    assert tree is not None
    first_line = head.count("\n") + 1
    while end < len(lines) and tree.body and not is_real(tree.body[-1]):
        if tree.body[-1].lineno <= first_line:
            break
        end = tree.body.pop().lineno - first_line  # a word of prose that happens to compile
    added = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and (node.end_lineno or 0) >= first_line and is_real(node)
    ]
    return "\n".join(lines[:end]) if added else None


def without_prose(text: str) -> str | None:
    """A program without the prose after it; None where what does not compile is code as well."""
    program = longest_program("", text)
    rest = "" if program is None else text[len(program) :].lstrip("\n")
    word = re.match(r"\w*", rest)
    is_code = _BEGINNING.match(rest) or (word is not None and keyword.iskeyword(word[0]))
    return None if is_code else program


def program_in_prose(text: str) -> str | None:
    """The first program that stands in prose without a fence, if there is one."""
    program = next((code for code in programs_in_spans(text) if "\n" in code), None)
    if program is not None:
        return program
    lines = text.split("\n")
    beginnings = [number for number, line in enumerate(lines) if _BEGINNING.match(line)]
    for number in beginnings[:_TRIES]:
        program = longest_program("", "\n".join(lines[number:]))
        if program is not None:
            return program
    # Markdown's oldest way: a paragraph of code is indented, the words before it are not.
    for found in list(_INDENTED_PARAGRAPH.finditer(text))[:_TRIES]:
        program = textwrap.dedent(found[1])
        tree = compiled(program)
        if tree is not None and any(map(is_real, tree.body)):
            return program
    for found in list(_ADDED.finditer(text))[:_TRIES]:
        program = meant(found[0])
        if program != found[0]:
            return program
    return None


def programs_in_spans(text: str) -> list[str]:
    """The programs between single back-ticks in prose, in order; a name, as of `f()`, is none."""
    marks = list(islice(_SPAN.finditer(text), 4 * _TRIES))
    programs: list[str] = []
    at = 0
    while at + 1 < len(marks):
        began, ended = marks[at : at + 2]
        code = text[began.end() : ended.start()].strip()
        tree = compiled(code) if len(began[0]) == len(ended[0]) < 3 else None
        is_program = tree is not None and any(map(is_real, tree.body)) and code[-2:] != "()"
        if is_program:
            programs.append(code)
        at += 2 if is_program else 1
    return programs


def without_titles(text: str) -> str:
    """A program without bare words before and after it, as a title is, which would end it at once.

    Args:
        text: what compiles; where it does not, or is nothing but words, it stays as it is.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines or not any(_WORDS.match(line) for line in (lines[0], lines[-1])):
        return text
    code, tree = read_code(text), compiled(text)
    if code is None or tree is None or not code.is_real:
        return text

    def is_title(node: ast.stmt) -> bool:
        is_string = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_words = isinstance(node, ast.Expr | ast.AnnAssign) and not is_real(node)
        return is_words and not is_string

    def is_wrong(node: ast.stmt) -> bool:
        return is_title(node) and not code.free.isdisjoint(mentioned(node))

    kept = list(tree.body)
    while is_wrong(kept[-1]):
        kept.pop()
    end = len(text.split("\n")) if len(kept) == len(tree.body) else kept[-1].end_lineno
    begin = 0
    # A name by itself is wrong before it is bound, too.
    while is_wrong(kept[0]) or (is_title(kept[0]) and isinstance(kept[0], ast.Expr)):
        title = kept.pop(0)
        if title.end_lineno == kept[0].lineno:
            break  # it is no line of its own
        begin = title.end_lineno or 0
    program = "\n".join(text.split("\n")[begin:end])
    return program.lstrip("\n") if begin else program


def unfinished_tail(text: str) -> str:
    """The end of a text that is the beginning of a program; empty if the text ends in prose."""
    lines = text.split("\n")
    whole = "\n".join(lines[:-1]) + "\n" if len(lines) > 1 else ""  # the last line may be half
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line) + 1)
    fault = 0  # no program can begin before a line that is wrong in all of them
    title = next((line for line in lines if line.strip()), "")
    first = None if _WORDS.match(title) else 0  # code may begin otherwise, but not with a title
    for number in [n for n, line in enumerate(lines) if n == first or _BEGINNING.match(line)]:
        if number < fault:
            continue
        part = whole[offsets[number] :]
        faults = []
        for body in ("", *BODIES):
            tree = compiled(part + body)
            if tree is not None and any(is_real(node) for node in tree.body):
                return text[offsets[number] :]
            faults.append(line_of_error(part + body) or 1)
        if _BEGINNING.match(lines[number]) and is_incomplete(text[offsets[number] :]):
            return text[offsets[number] :]
        fault = number + min(faults)
    return ""


def is_beginning(line: str, half: str) -> bool:
    """Whether a program may begin with a line, which is more than a word of prose and its end.

    Args:
        line: without its newline.
        half: its first part, from another author.
    """
    added = line[len(half) :]
    is_label = half.isidentifier() and added.startswith(":")
    return bool(added.strip()) and not is_label and _BEGINNING.match(line) is not None
