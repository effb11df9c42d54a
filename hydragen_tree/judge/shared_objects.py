"""Whether test code may share objects with the program, or only plain values pass between them.

Decided from the test alone, never from what a program does: else a program could choose how it is
tested. Plain is what is proved to be: functions of the program are called with literals, and each
result is compared at once with literals, as the tests of HumanEval, MBPP and evalplus do. Whatever
else a test does could tell an object from a copy of its parts.
"""

import ast
import builtins
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

from hydragen_tree.problem.formats.evalplus import is_evalplus_test

# Of literals they make values, the same in every process.
_MAKING = {"set", "frozenset", "tuple", "list", "range", "float", "int", "bytearray"}
# Of a result they ask what its plain parts answer.
_ASKING = {"abs", "len", "list", "round", "set", "sorted", "tuple"}
_SOLUTION = "Solution"  # LeetCode's class, whose methods are called
_METADATA = "METADATA"  # HumanEval's, which nothing reads
_SINGLE = (None, True, False)  # the same object in every process


@lru_cache(256)
def shares_objects(code: str) -> bool:
    """Whether a test may need the program's objects themselves, not their values.

    Args:
        code: the test. What does not parse shares nothing.
    """
    if is_evalplus_test(code):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return False
    try:
        return not _is_plain(tree)
    except RecursionError:
        return True


def _is_plain(tree: ast.Module) -> bool:
    """Whether a test is assertions, and functions of assertions given a program's function."""
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    outer = _Scope({check.name for check in checks}, {})
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            plain = _is_plain_check(node, outer)
        elif isinstance(node, ast.Assign):
            plain = _assigned(node) == _METADATA and outer.is_value(node.value)
        else:
            plain = outer.is_plain_statement(node) or _gives_function(node, outer)
        if not plain:
            return False
    return True


def _is_plain_check(node: ast.FunctionDef, outer: "_Scope") -> bool:
    """`def check(candidate):` with nothing but assertions, and names for literals, below it."""
    parameters = [argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)]
    if len(parameters) != 1 or not node.args.args or node.args.defaults or node.decorator_list:
        return False
    names = {_assigned(part): part.value for part in node.body if isinstance(part, ast.Assign)}
    scope = _Scope({*outer.bound, *names, *parameters}, names, parameters[0])
    assigned = sum(isinstance(part, ast.Assign) for part in node.body)
    distinct = len(names) == assigned and names.keys().isdisjoint({"", *parameters})
    asserted = [part.test for part in node.body if isinstance(part, ast.Assert)]
    called = any(_name(call.func) == parameters[0] for part in asserted for call in _calls(part))
    return (
        distinct
        and called
        and all(map(scope.is_plain_statement, node.body))
        and all(_is_given_once(name, value, node) for name, value in names.items())
    )


def _is_given_once(name: str, value: ast.expr, check: ast.FunctionDef) -> bool:
    """Whether it matters to nobody that the program is given a copy of a named value."""
    if _is_scalar(value):
        return True
    loads = Counter(_loads(check))[name]
    given = [a for call in _calls(check) if not _is_of_python(call) for a in call.args]
    given += [key.value for call in _calls(check) for key in call.keywords]
    return loads == 1 or all(name not in _loads(argument) for argument in given)


def _gives_function(node: ast.stmt, scope: "_Scope") -> bool:
    """`check(f)`, or `check(Solution().f)`."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return False
    given = _arguments(node.value)
    return _name(node.value.func) in scope.bound and len(given) == 1 and scope.is_programs(given[0])


class _Scope:
    """What can be said of expressions where some names are bound.

    Args:
        bound: names that the test binds.
        values: those that are names for literals.
        candidate: the one that is a function of the program.
    """

    def __init__(
        self, bound: set[str], values: dict[str, ast.expr], candidate: str | None = None
    ) -> None:
        self.bound, self._values, self._candidate = bound, values, candidate

    def is_plain_statement(self, node: ast.stmt) -> bool:
        """An assertion, a literal with a name, or nothing."""
        if isinstance(node, ast.Assert):
            return self._is_check(node.test) and self._is_message(node.msg)
        if isinstance(node, ast.Assign):  # of no other name, for the two would share it
            return _Scope(self.bound, {}).is_value(node.value)
        nothing = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        return nothing or isinstance(node, ast.Pass)

    def is_programs(self, node: ast.expr) -> bool:
        """A function of the program; a name as of a class is not taken for one."""
        if isinstance(node, ast.Attribute):
            made = node.value
            if not isinstance(made, ast.Call) or _arguments(made):
                return False
            return _name(made.func) == _SOLUTION and _SOLUTION not in self.bound
        name = _name(node)
        if name == self._candidate:
            return True
        free = bool(name) and name not in self.bound and not hasattr(builtins, name)
        return free and not name.startswith("__")

    def is_value(self, node: ast.expr) -> bool:
        """A literal, or what Python makes of literals: a fresh object wherever it stands."""
        if isinstance(node, ast.Name):
            return node.id in self._values
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return all(map(self.is_value, node.elts))
        if isinstance(node, ast.Dict):
            return all(key is not None and self.is_value(key) for key in node.keys) and all(
                map(self.is_value, node.values)
            )
        if isinstance(node, ast.Call):
            made = _name(node.func) in _MAKING - self.bound and not node.keywords
            return made and all(map(self.is_value, node.args))
        return _is_scalar(node) or _is_repeated(node)

    def _is_check(self, node: ast.expr) -> bool:
        if isinstance(node, ast.BoolOp):
            return all(map(self._is_check, node.values))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self._is_check(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(by, ast.Is | ast.IsNot) for by in node.ops):
                return len(sides) == 2 and self._is_result(sides[0]) and _is_single(sides[1])
            results = [side for side in sides if not self.is_value(side)]
            return len(results) == 1 and self._is_result(results[0])
        return self._is_result(node) or isinstance(node, ast.Constant)

    def _is_result(self, node: ast.expr) -> bool:
        """What a function of the program gives, or its size, its items, its distance."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
            sides = (node.left, node.right), (node.right, node.left)
            return any(self._is_result(one) and _is_scalar(other) for one, other in sides)
        if not isinstance(node, ast.Call):
            return False
        if _is_of_python(node):
            asking = _name(node.func) in _ASKING - self.bound and not node.keywords
            first, others = node.args[:1], node.args[1:]
            return asking and any(map(self._is_result, first)) and all(map(_is_scalar, others))
        called = self.is_programs(node.func) and not _is_like_a_class(_name(node.func))
        return called and all(map(self.is_value, _arguments(node)))

    def _is_message(self, node: ast.expr | None) -> bool:
        if isinstance(node, ast.JoinedStr):
            parts = [part for part in node.values if isinstance(part, ast.FormattedValue)]
            return all(self.is_value(part.value) and not part.format_spec for part in parts)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._is_message(node.left) and self._is_message(node.right)
        if isinstance(node, ast.Call) and _name(node.func) == "str" and len(node.args) == 1:
            return self._is_result(node.args[0])
        return node is None or self.is_value(node)


def _is_scalar(node: ast.expr) -> bool:
    """A number, a text, bytes, or what is computed of them."""
    if isinstance(node, ast.UnaryOp):
        return _is_scalar(node.operand)
    if isinstance(node, ast.BinOp):
        return _is_scalar(node.left) and _is_scalar(node.right)
    return isinstance(node, ast.Constant) and node.value is not ...


def _is_repeated(node: ast.expr) -> bool:
    """`[0] * 5`: items that nobody can change."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mult):
        return False
    sides = (node.left, node.right), (node.right, node.left)
    return any(
        isinstance(items, ast.List) and all(map(_is_scalar, items.elts)) and _is_scalar(times)
        for items, times in sides
    )


def _is_single(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and any(node.value is one for one in _SINGLE)


def _is_of_python(call: ast.Call) -> bool:
    return hasattr(builtins, _name(call.func))


def _is_like_a_class(name: str) -> bool:
    return name[:1].isupper() and "_" not in name


def _arguments(call: ast.Call) -> Sequence[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _assigned(node: ast.Assign) -> str:
    """The only name that it binds, or an empty one."""
    return _name(node.targets[0]) if len(node.targets) == 1 else ""


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _loads(tree: ast.AST) -> list[str]:
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return [node.id for node in names if isinstance(node.ctx, ast.Load)]
