"""What a piece of text is as Python: whether it compiles, what it binds, needs and does when run.

Nothing here runs a program; all is read off its syntax tree and its symbol table.
"""

import ast
import builtins
import codeop
import keyword
import re
import symtable
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

_BUILTINS = frozenset(dir(builtins)) | {"__file__", "__annotations__"}
_OUTPUT = frozenset({"print", "stdout", "write", "writelines"})
_TEST_LIBRARIES = frozenset({"unittest", "pytest", "doctest", "timeit"})
_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
_TRIES = 24  # ends, or beginnings, of a program in prose that are tried
_BODIES = ("    pass\n", "  pass\n", "\tpass\n", "        pass\n")
_KEPT = 1024  # texts whose reading is remembered: an answer is looked at from several sides
_PROSE = re.compile(r"\s*(?:`|([A-Za-z_]\w*)[ \t]+([A-Za-z_]\w*))")
_RESERVED = frozenset([*keyword.kwlist, *keyword.softkwlist])
_WORDS = re.compile(r"[A-Za-z_][\w.:, ]*$")  # a line of a program may be that too
_INDENTED = re.compile(r"(?:[ \t]*(?:#[^\r\n]*)?\n)*[ \t]+[^\s#\\]")  # its first statement is
_BEGINNING = re.compile(
    r"(?:from|import|def|async|class)\s+\w|@\w|(?:for|while|if|with)\b.*:|try:|print\(|#"
    r"|[A-Za-z_][\w.]*(?:\s*,\s*[A-Za-z_]\w*)*\s*(?::\s*\w+\s*)?=(?!=)|[a-z_]\w*\("
)


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


def compiles(text: str) -> bool:
    """Whether a text is a Python 3 program."""
    return goes_on("", text)


def goes_on(head: str, text: str) -> bool:
    """Whether a text, put after the beginning of a program, makes a whole one with it."""
    return not _begins_as_prose(head, text) and _line_of_error(head + text) is None


def _begins_as_prose(head: str, text: str) -> bool:
    """Whether a statement would begin with a back-tick or two plain words, which none can.

    Most answers in prose are told from programs so, without the compiler.
    """
    found = _PROSE.match(text)
    is_prose = found is not None and _RESERVED.isdisjoint(found.groups())
    return is_prose and (not head or _is_open_block(head))


@lru_cache(maxsize=_KEPT)
def read_code(text: str) -> Code | None:
    """The program that a text is; None if it does not compile."""
    tree = _compiled(text)
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
        is_real=any(_is_real(node) for node in tree.body),
        defined=frozenset(node.name for node in defined),
        reads=bool(run & {"stdin", "fileinput", "open(0)"}) or ("input" in run and not own_input),
        writes=bool(run & _OUTPUT),
        is_test=bool(libraries & _TEST_LIBRARIES)
        or any(name.startswith("test") for name in names)
        or any(isinstance(node, ast.Assert) for node in tested),
    )


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def longest_program(head: str, text: str) -> str | None:
    """The longest beginning of a text, in lines, that continues a program.

    Prose and half a statement at its end are left out; what is left must do something.

    Args:
        head: the program so far, up to the middle of a line or a function.
        text: what may continue it.

    Returns:
        The part of `text`, or None if not even its first statement belongs to the program.
    """
    if (not text and head.endswith("\n")) or _begins_as_prose(head, text):
        return None
    if _INDENTED.match(text) and _is_open_block(head) and goes_on(head, text):
        return text  # the block that the head ends in has gained a statement
    lines = text.split("\n")
    end = len(lines)
    for _ in range(_TRIES):
        fault = _line_of_error(head + "\n".join(lines[:end]))
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
    tree = _compiled(head + "\n".join(lines[:end]))
    assert tree is not None
    first_line = head.count("\n") + 1
    while end < len(lines) and tree.body and not _is_real(tree.body[-1]):
        if tree.body[-1].lineno <= first_line:
            break
        end = tree.body.pop().lineno - first_line  # a word of prose that happens to compile
    added = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and (node.end_lineno or 0) >= first_line and _is_real(node)
    ]
    return "\n".join(lines[:end]) if added else None


@lru_cache(maxsize=_KEPT)
def _is_open_block(head: str) -> bool:
    """Whether a program ends, with a whole line, in a block that may go on."""
    is_whole = head.endswith("\n") and not head.endswith("\\\n")
    return is_whole and any(compiles(head + body) for body in _BODIES)


def without_prose(text: str) -> str | None:
    """A program without the prose after it; None where what does not compile is code as well."""
    program = longest_program("", text)
    rest = "" if program is None else text[len(program) :].lstrip("\n")
    word = re.match(r"\w*", rest)
    is_code = _BEGINNING.match(rest) or (word is not None and keyword.iskeyword(word[0]))
    return None if is_code else program


def program_in_prose(text: str) -> str | None:
    """The first program that stands in prose without a fence, if there is one."""
    lines = text.split("\n")
    beginnings = [number for number, line in enumerate(lines) if _BEGINNING.match(line)]
    for number in beginnings[:_TRIES]:
        program = longest_program("", "\n".join(lines[number:]))
        if program is not None:
            return program
    return None


def without_titles(text: str) -> str:
    """A program without bare words before and after it, as a title is, which would end it at once.

    Args:
        text: what compiles; where it does not, or is nothing but words, it stays as it is.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines or not any(_WORDS.match(line) for line in (lines[0], lines[-1])):
        return text
    code, tree = read_code(text), _compiled(text)
    if code is None or tree is None or not code.is_real:
        return text

    def is_title(node: ast.stmt) -> bool:
        is_string = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_words = isinstance(node, ast.Expr | ast.AnnAssign) and not _is_real(node)
        return is_words and not is_string

    def is_wrong(node: ast.stmt) -> bool:
        return is_title(node) and not code.free.isdisjoint(_mentioned(node))

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
    for number in [n for n, line in enumerate(lines) if n == 0 or _BEGINNING.match(line)]:
        if number < fault:
            continue
        part = whole[offsets[number] :]
        faults = []
        for body in ("", *_BODIES):
            tree = _compiled(part + body)
            if tree is not None and any(_is_real(node) for node in tree.body):
                return text[offsets[number] :]
            faults.append(_line_of_error(part + body) or 1)
        if _BEGINNING.match(lines[number]) and _is_incomplete(text[offsets[number] :]):
            return text[offsets[number] :]
        fault = number + min(faults)
    return ""


def is_comment(text: str) -> bool:
    """Whether a text holds comments and strings alone."""
    tree = _compiled(text)
    return tree is not None and all(
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for node in tree.body
    )


def end_of_futures(text: str) -> int:
    """The last line, from 1, of a program's imports from `__future__`; 0 if it has none."""
    tree = _compiled(text)
    nodes = [] if tree is None else tree.body
    futures = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    return max((node.end_lineno or 0 for node in futures), default=0)


@lru_cache(maxsize=_KEPT)
def stub(text: str) -> tuple[str, str] | None:
    """The function that a text leaves without a body, if its last statement is one.

    Returns:
        Its name, and the text before it: imports and helpers.
    """
    tree = _compiled(text) or _compiled(text.rstrip() + "\n    pass\n")
    if tree is None or not tree.body:
        return None
    last = tree.body[-1]
    if not isinstance(last, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    for node in last.body:  # one of HumanEval's imports a module before its docstring
        if _is_real(node) and not isinstance(node, ast.Import | ast.ImportFrom):
            return None
    first = min([last.lineno, *(decorator.lineno for decorator in last.decorator_list)])
    return last.name, "\n".join(text.split("\n")[: first - 1])


def _compiled(text: str) -> ast.Module | None:
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
def _line_of_error(text: str) -> int | None:
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


def _is_incomplete(text: str) -> bool:
    """Whether more text can make it compile, as after `def f(x):` or an open bracket."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return codeop.compile_command(text, "solution.py", "exec") is None
    except _ERRORS:
        return False


def _is_real(node: ast.AST) -> bool:
    """Whether a statement does something: `Output: 3`, `YES` and `[1, 2]` compile as well."""
    if isinstance(node, ast.Expr):
        effects = ast.Call | ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr
        return any(isinstance(part, effects) for part in ast.walk(node))
    if isinstance(node, ast.AnnAssign):
        return node.value is not None
    return not isinstance(node, ast.Pass)


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
    mentioned: set[str] = set()
    waiting: list[ast.AST] = [node for node in tree.body if not isinstance(node, _Definition)]
    while waiting:
        for name in _mentioned(waiting.pop()):
            if name not in mentioned:
                mentioned.add(name)
                if name in definitions:
                    waiting.append(definitions[name])
    return mentioned


def _mentioned(node: ast.AST) -> Iterator[str]:
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


def _imports_all(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.names[0].name == "*"


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
