"""What a text is as a program: what it binds, needs and does when run.

Nothing here runs a program; all is read off its syntax tree and its symbol table.
"""

import ast
import builtins
import symtable
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

from hydragen_tree.sample.python_syntax import compiled, is_real, mentioned

_BUILTINS = frozenset(dir(builtins)) | {"__file__", "__annotations__"}
_OUTPUT = frozenset({"print", "stdout", "write", "writelines"})
_TEST_LIBRARIES = frozenset({"unittest", "pytest", "doctest", "timeit"})
_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
_KEPT = 1024  # texts whose reading is remembered: an answer is looked at from several sides


@dataclass(frozen=True, slots=True)
class Code:
    """A text that compiles as a Python 3 program.

    Args:
        text: the source.
        bound: names that its top level defines, assigns or imports; `*` where it imports all.
        defined: the functions and classes among these.
        methods: methods of a class `Solution`, as contest sites ask for.
        free: names that it uses anywhere and nobody binds.
        is_real: it has a statement that does something, unlike `3` or a word.
        reads: running it reads standard input.
        writes: running it writes.
        is_test: it is a test of something else, by its names, libraries or assertions.
    """

    text: str
    bound: frozenset[str]
    defined: frozenset[str]
    methods: frozenset[str]
    free: frozenset[str]
    is_real: bool
    reads: bool
    writes: bool
    is_test: bool

    def gives(self, name: str) -> bool:
        """Whether tests can call `name` of this program."""
        return name in self.bound or name in self.methods

    def binds(self, names: Collection[str]) -> bool:
        """Whether it gives one of these names to a program that follows, or may do so."""
        return bool(names) and not self.bound.isdisjoint({*names, "*"})


@lru_cache(maxsize=_KEPT)
def read_code(text: str) -> Code | None:
    """The program that a text is; None if it does not compile."""
    tree = compiled(text)
    if tree is None:
        return None
    try:
        bound, used = _names(symtable.symtable(text, "solution.py", "exec"))
        bound |= {"*" for node in tree.body if _imports_all(node)}
        run = _mentioned_when_run(tree)
    except _ERRORS:
        return None
    defined = [node for node in tree.body if isinstance(node, _Definition)]
    names = [node.name.lower() for node in defined]
    libraries = {name.partition(".")[0] for name in _imported(tree)}
    own_input = "input" in bound and "stdin" not in run
    free = used - bound - _BUILTINS
    tested = tree.body if not free else ast.walk(tree)  # what it lacks may be what it tests
    return Code(
        text=text,
        bound=frozenset(bound),
        methods=frozenset(
            item.name
            for node in defined
            if isinstance(node, ast.ClassDef) and node.name == "Solution"
            for item in node.body
            if isinstance(item, ast.FunctionDef)
        ),
        free=frozenset(free),
        is_real=any(is_real(node) for node in tree.body),
        defined=frozenset(node.name for node in defined),
        reads=bool(run & {"stdin", "fileinput", "open(0)"}) or ("input" in run and not own_input),
        writes=bool(run & _OUTPUT),
        is_test=bool(libraries & _TEST_LIBRARIES)
        or any(name.startswith("test") for name in names)
        or any(isinstance(node, ast.Assert) for node in tested),
    )


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@lru_cache(maxsize=_KEPT)
def stub(text: str) -> tuple[str, str] | None:
    """The function that a text leaves without a body, if its last statement is one.

    Returns:
        Its name, and the text before it: imports and helpers.
    """
    tree = compiled(text) or compiled(text.rstrip() + "\n    pass\n")
    if tree is None or not tree.body:
        return None
    last = tree.body[-1]
    if not isinstance(last, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    if not all(map(_is_unwritten, last.body)):
        return None
    first = min([last.lineno, *(decorator.lineno for decorator in last.decorator_list)])
    return last.name, "\n".join(text.split("\n")[: first - 1])


def without_placeholder(text: str) -> str:
    """A text that ends in a function or method without a body, ready for one.

    What stands for the body, as `pass` or `raise NotImplementedError` does, is left out; where
    nothing does, the text stays as it is.
    """
    tree = compiled(text)
    last: ast.AST | None = tree.body[-1] if tree is not None and tree.body else None
    while isinstance(last, ast.ClassDef):
        last = last.body[-1]
    if not isinstance(last, ast.FunctionDef | ast.AsyncFunctionDef):
        return text
    placeholder = last.body[-1]
    if not all(map(_is_unwritten, last.body)) or not _is_placeholder(placeholder):
        return text
    lines = text.split("\n")[: placeholder.lineno]
    before = lines.pop().encode()[: placeholder.col_offset].decode().rstrip()
    return "".join(f"{line}\n" for line in (*lines, *([before] if before else [])))


def _is_placeholder(node: ast.stmt) -> bool:
    is_dots = isinstance(node, ast.Expr) and getattr(node.value, "value", None) is ...
    return is_dots or isinstance(node, ast.Raise | ast.Pass)


def _is_unwritten(node: ast.stmt) -> bool:
    """Whether a statement stands in a function that is still to be written."""
    if isinstance(node, ast.Raise):
        return "NotImplementedError" in mentioned(node)
    # One of HumanEval's imports a module before its docstring.
    return not is_real(node) or isinstance(node, ast.Import | ast.ImportFrom)


def _names(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Global names that are bound, and global names that are used, in all scopes."""
    top = table.get_type() == "module"
    bound, used = set(), set()
    for symbol in table.get_symbols():
        is_global = top or symbol.is_global()
        if is_global and (symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()):
            bound.add(symbol.get_name())
        if is_global and symbol.is_referenced():
            used.add(symbol.get_name())
    for child in table.get_children():
        inner_bound, inner_used = _names(child)
        bound |= inner_bound
        used |= inner_used
    return bound, used


def _mentioned_when_run(tree: ast.Module) -> set[str]:
    """Names and attributes in the code that runs: the top level, and what it calls by name."""
    definitions = {node.name: node for node in tree.body if isinstance(node, _Definition)}
    found: set[str] = set()
    waiting: list[ast.AST] = [node for node in tree.body if not isinstance(node, _Definition)]
    while waiting:
        for name in mentioned(waiting.pop()):
            if name not in found:
                found.add(name)
                if name in definitions:
                    waiting.append(definitions[name])
    return found


def _imports_all(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.names[0].name == "*"


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
