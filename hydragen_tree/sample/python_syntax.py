"""What a text is to Python's own compiler, and what the statements of its syntax tree are."""

import ast
import codeop
import keyword
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache

_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
BODIES = ("    pass\n", "  pass\n", "\tpass\n", "        pass\n")
_KEPT = 1024  # texts whose reading is remembered: an answer is looked at from several sides
_PROSE = re.compile(r"\s*(?:`|([A-Za-z_]\w*)[ \t]+([A-Za-z_]\w*))")
_RESERVED = frozenset([*keyword.kwlist, *keyword.softkwlist])


def compiles(text: str) -> bool:
    """Whether a text is a Python 3 program."""
    return goes_on("", text)


def goes_on(head: str, text: str) -> bool:
    """Whether a text, put after the beginning of a program, makes a whole one with it."""
    return not begins_as_prose(head, text) and line_of_error(head + text) is None


def begins_as_prose(head: str, text: str) -> bool:
    """Whether a statement would begin with a back-tick or two plain words, which none can.

    Most answers in prose are told from programs so, without the compiler.
    """
    found = _PROSE.match(text)
    is_prose = found is not None and _RESERVED.isdisjoint(found.groups())
    return is_prose and (not head or is_open_block(head))


@lru_cache(maxsize=_KEPT)
def is_open_block(head: str) -> bool:
    """Whether a program ends, with a whole line, in a block that may go on."""
    is_whole = head.endswith("\n") and not head.endswith("\\\n")
    return is_whole and any(compiles(head + body) for body in BODIES)


def compiled(text: str) -> ast.Module | None:
    """A tree that Python would also compile: `return` outside a function parses, but does not."""
    if not compiles(text):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except _ERRORS:
        return None


@lru_cache(maxsize=_KEPT)
def line_of_error(text: str) -> int | None:
    """The line, from 1, that keeps a text from compiling; None if nothing does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "solution.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        return error.lineno or 1
    except _ERRORS:
        return 1
    return None


def is_incomplete(text: str) -> bool:
    """Whether more text can make it compile, as after `def f(x):` or an open bracket."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return codeop.compile_command(text, "solution.py", "exec") is None
    except _ERRORS:
        return False


def is_comment(text: str) -> bool:
    """Whether a text holds comments and strings alone."""
    tree = compiled(text)
    return tree is not None and all(
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for node in tree.body
    )


def end_of_futures(text: str) -> int:
    """The last line, from 1, of a program's imports from `__future__`; 0 if it has none."""
    tree = compiled(text)
    nodes = [] if tree is None else tree.body
    futures = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    return max((node.end_lineno or 0 for node in futures), default=0)


def is_real(node: ast.AST) -> bool:
    """Whether a statement does something: `Output: 3`, `YES` and `[1, 2]` compile as well."""
    if isinstance(node, ast.Expr):
        effects = ast.Call | ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr
        return any(isinstance(part, effects) for part in ast.walk(node))
    if isinstance(node, ast.AnnAssign):
        return node.value is not None
    return not isinstance(node, ast.Pass)


def mentioned(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load):
            yield part.id
        elif isinstance(part, ast.Attribute):
            yield part.attr
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.args:
            given = part.args[0]
            is_stdin = isinstance(given, ast.Constant) and given.value in (0, "/dev/stdin")
            if part.func.id == "open" and is_stdin:
                yield "open(0)"
