"""Whether test code shares objects with the program, or only values pass between them.

Decided from the test alone, never from what a program does: else a program could choose how it is
tested. Values are what has plain parts (numbers, text, containers of them), and the program's
functions where they are called.
"""

import ast
import builtins
import collections
import sys
import warnings
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

# A method or attribute of one of these says nothing about whose object it is.
_PLAIN = (
    *(str, bytes, bytearray, int, float, complex, list, tuple, dict, set, frozenset, range),
    *(collections.Counter, collections.OrderedDict, collections.deque, collections.defaultdict),
    *(Fraction, BaseException),
)
_PLAIN_ATTRIBUTES = {n for kind in _PLAIN for n in dir(kind) if not n.startswith("__")}
_PLAIN_ATTRIBUTES |= {"__name__", "__doc__"}
# Of these a test may ask nothing but what the program's own methods say of the object.
_ASKING = ("str", "repr", "hash", "isinstance", "issubclass", "type", "getattr", "hasattr", "id",
           "setattr", "delattr", "vars", "dir", "callable")  # fmt: skip
_TYPES = {"int", "str", "float", "list", "tuple", "dict", "set", "bool", "bytes", "frozenset"}
_CALLERS = ("map", "filter", "sorted", "min", "max")  # of functions that they are given
_LOOKING = {"asyncio", "dataclasses", "inspect", "operator", "pickle", "types", "weakref"}
# What acts on the process that it is called in: its names, its streams, its random numbers.
_HERE = {"globals", "patch", "redirect_stdout", "redirect_stderr", "environ"}
_STATEFUL = {"mock", "unittest", "warnings", "logging"}
_LAZY = ("iter", "map", "filter", "zip", "enumerate", "reversed")
_LEETCODE = "Solution"  # its methods are called, and no more


@lru_cache(256)
def shares_objects(code: str) -> bool:
    """Whether a test needs the program's objects themselves, not their values.

    Args:
        code: the test. What does not parse shares nothing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return False
    look = _Look(tree)
    try:
        return any(look.shares(node) for node in _deciding(tree))
    except RecursionError:
        return False


class _Look:
    """What the names in a test's code stand for."""

    def __init__(self, tree: ast.Module) -> None:
        self._bound: set[str] = set()  # by the test, as anything
        self._functions: set[str] = set()  # defined in the test
        self._parameters: set[str] = set()  # of those, where a program's function may come in
        self._modules: set[str] = set(sys.stdlib_module_names) | {"np", "numpy"}
        self._plain_uses: set[int] = set()  # names that are called, or handed on to be called
        self._results: set[str] = set()  # names for what the program's functions gave
        self._values: set[int] = set()  # of those, what a test function is given
        for node in ast.walk(tree):
            self._note(node)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                self._note_uses(node)
            elif isinstance(node, ast.Assign):
                self._note_results(node)

    def _note(self, node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._functions.add(node.name)
        if isinstance(node, ast.Assign) and _holds_lambda(node.value):
            self._functions |= {
                target.id for target in node.targets if isinstance(target, ast.Name)
            }
        if isinstance(node, ast.arg):
            self._parameters.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            self._modules |= names
        elif isinstance(node, ast.Assign) and self._is_of_a_library(node.value):
            self._modules |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            self._bound.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            self._bound.add(node.name)

    def _note_uses(self, call: ast.Call) -> None:
        self._plain_uses.add(id(call.func))
        calls = isinstance(call.func, ast.Name) and call.func.id in _CALLERS
        if calls or self._is_programs(call.func) or self._is_test_function(call.func):
            self._plain_uses |= {id(argument) for argument in _arguments(call)}
        if self._is_test_function(call.func):
            self._values |= {id(argument) for argument in _arguments(call)}

    def _note_results(self, node: ast.Assign) -> None:
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            self._results |= {t.id for t, v in pairs if isinstance(t, ast.Name) and self._gives(v)}

    def _is_of_a_library(self, value: ast.AST) -> bool:
        """Whether it is made by a library alone, as `random.Random(1)` is."""
        if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Attribute):
            return False
        root = value.func.value
        plain = not any(isinstance(n, ast.Call) for a in _arguments(value) for n in ast.walk(a))
        return plain and isinstance(root, ast.Name) and root.id in self._modules

    def shares(self, node: ast.AST) -> bool:
        """Whether this part of the test is one that values do not serve."""
        if isinstance(node, ast.ClassDef):
            return not any(_last_name(base).endswith(("Error", "Exception")) for base in node.bases)
        if isinstance(node, ast.Attribute):
            acts = node.attr in _HERE or _last_name(node.value) in _STATEFUL
            seeds = node.attr == "seed" and _last_name(node.value) == "random"
            return acts or seeds or self._is_attribute_of_an_object(node)
        if isinstance(node, ast.Name):
            return (node.id in _HERE and node.id not in self._bound) or self._is_object(node)
        if isinstance(node, ast.Call):
            return self._asks_or_gives_functions(node)
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            if any(isinstance(by, ast.Is | ast.IsNot) for by in node.ops):
                kinds = all(isinstance(s, ast.Call) and _last_name(s.func) == "type" for s in sides)
                return not kinds and not any(map(_is_one_of_a_kind, sides))
            return sum(self._is_result(side) for side in sides) > 1
        if isinstance(node, ast.withitem):
            return self._is_result(node.context_expr)
        if isinstance(node, ast.BinOp):
            return self._is_result(node.left) and self._is_result(node.right)
        return False

    def _is_attribute_of_an_object(self, node: ast.Attribute) -> bool:
        if not isinstance(node.ctx, ast.Load):
            return True
        root = node.value
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and root.id in self._modules:
            return False
        if isinstance(root, ast.Call) and _last_name(root.func) in (_LEETCODE, *self._modules):
            return False
        return node.attr not in _PLAIN_ATTRIBUTES

    def _is_object(self, node: ast.Name) -> bool:
        """A class, or a variable, of the program's."""
        if not self._is_free(node.id) or not isinstance(node.ctx, ast.Load):
            return False
        if node.id[0].isupper() and "_" not in node.id:
            return node.id != _LEETCODE and id(node) not in self._values
        return id(node) not in self._plain_uses

    def _asks_or_gives_functions(self, call: ast.Call) -> bool:
        if _last_name(call.func) in ("eval", "exec"):
            return len(call.args) == 1  # without names of its own
        if isinstance(call.func, ast.Name) and call.func.id in _ASKING:
            return any(self._is_result(argument) for argument in _arguments(call))
        if isinstance(call.func, ast.Attribute) and _last_name(call.func.value) in _LOOKING:
            return True
        if not self._is_programs(call.func) and not _is_leetcode_method(call.func):
            return False
        given = _arguments(call)
        return any(self._is_function(value) or self._is_lazy(value) for value in given)

    def _is_lazy(self, node: ast.AST) -> bool:
        """An iterator, which is read no further than the program reads it."""
        if not isinstance(node, ast.Call):
            return isinstance(node, ast.GeneratorExp)
        if isinstance(node.func, ast.Attribute):
            return _last_name(node.func.value) in ("itertools", "functools")
        return isinstance(node.func, ast.Name) and node.func.id in (*_LAZY, "partial")

    def _is_function(self, node: ast.AST) -> bool:
        """A function that is not the program's own, or something that holds one."""
        if isinstance(node, ast.Lambda):
            return True
        if isinstance(node, ast.Name):
            known = node.id in _TYPES or hasattr(builtins, node.id)
            return (known and node.id not in self._bound) or node.id in self._functions
        if isinstance(node, ast.Attribute):
            return (
                isinstance(node.value, ast.Name)
                and node.value.id in self._modules | _TYPES
                and (
                    not node.attr.isupper()
                    and node.attr not in ("inf", "nan", "pi", "e", "maxsize")
                )
            )
        if isinstance(node, ast.List | ast.Tuple):
            return any(map(self._is_function, node.elts))
        return isinstance(node, ast.Dict) and any(map(self._is_function, node.values))

    def _is_result(self, node: ast.AST) -> bool:
        """What a function of the program gave."""
        named = isinstance(node, ast.Name) and node.id in self._results - self._parameters
        return self._gives(node) or named

    def _gives(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and self._is_programs(node.func)

    def _is_programs(self, function: ast.AST) -> bool:
        if isinstance(function, ast.Call):
            return self._is_programs(function.func)
        if not isinstance(function, ast.Name):
            return False
        return function.id in self._parameters or self._is_free(function.id)

    def _is_test_function(self, function: ast.AST) -> bool:
        return isinstance(function, ast.Name) and function.id in self._functions

    def _is_free(self, name: str) -> bool:
        own = self._bound | self._functions | self._parameters | self._modules
        return name not in own and not hasattr(builtins, name)


def _deciding(node: ast.AST) -> Iterator[ast.AST]:
    """All parts of a test but the messages of its assertions, which decide nothing."""
    yield node
    message = node.msg if isinstance(node, ast.Assert) else None
    for child in ast.iter_child_nodes(node):
        if child is not message:
            yield from _deciding(child)


def _holds_lambda(node: ast.AST) -> bool:
    """A function without a name, or a container of them."""
    if isinstance(node, ast.List | ast.Tuple):
        return any(map(_holds_lambda, node.elts))
    if isinstance(node, ast.Dict):
        return any(map(_holds_lambda, node.values))
    return isinstance(node, ast.Lambda)


def _is_one_of_a_kind(node: ast.AST) -> bool:
    """A value, or a plain type, that is the same one in every process."""
    return isinstance(node, ast.Constant) or _last_name(node) in _TYPES


def _is_leetcode_method(function: ast.AST) -> bool:
    owner = function.value if isinstance(function, ast.Attribute) else None
    return isinstance(owner, ast.Call) and _last_name(owner.func) == _LEETCODE


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
