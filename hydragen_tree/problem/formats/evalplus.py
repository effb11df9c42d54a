"""evalplus's differential tests: inputs only; what is right is what the reference gives for them.

A test becomes Python that runs the reference beside the program, in a namespace of its own, on
copies of every input. Nothing is run here. The oracles follow evalplus 0.3.1: equality, then
closeness for floating-point results, and the few tasks with an oracle of their own.
"""

import re
import string
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

# MBPP+ keeps tuples as JSON lists. By task number, which lists were tuples: `*` is each argument,
# `0` the first, `0/*` the elements of the first, and so on. Inner ones come before outer ones.
_TUPLES: dict[str, frozenset[int]] = {
    "*": frozenset(
        {2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630,
         726, 740, 744, 809}
    ),
    "*/*": frozenset({63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780}),
    "*/* *": frozenset({259, 401, 445}),
    "0/*": frozenset({75, 413, 444, 722, 753}),
    "0/* *": frozenset({278}),
    "0": frozenset({250, 307, 405, 446, 617, 720, 763, 808}),
    "1": frozenset({106, 750}),
    "everywhere": frozenset({580, 615, 791}),
}  # fmt: skip
_SETS = 115  # the elements of its first argument are sets
_COMPLEX = {124: (float, complex), 252: (complex,)}  # numbers kept as strings

# Tasks whose results are compared otherwise than by equality. `got` and `wanted` are the results,
# `args` the arguments.
_AS_SETS = (
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly",
    "larg_nnum", "intersection_array", "find_dissimilar", "Diff",
)  # fmt: skip
_AS_TRUTH = ("check_str", "text_match_three", "text_starta_endb")
_ORACLES = {
    **dict.fromkeys(_AS_SETS, "set(got) == set(wanted)"),
    # A match counts as true, and so does the reference's.
    **dict.fromkeys(
        _AS_TRUTH,
        "(got if isinstance(got, bool) else got is not None)"
        " == (wanted if isinstance(wanted, bool) else wanted is not None)",
    ),
    "are_equivalent": "True",
    "sum_div": "got == wanted or got == 0",
    "surface_Area": "got == wanted or got == round("
    "args[0] ** 2 + 2 * args[0] * math.sqrt((args[0] / 2) ** 2 + args[1] ** 2))",
    "digit_distance_nums": "got == wanted or got == sum(abs(int(a) - int(b)) for a, b in zip("
    "*(str(n).zfill(max(len(str(m)) for m in args)) for n in args)))",
    "find_zero": "abs(sum(c * got**i for i, c in enumerate(args[0]))) <= tolerance",
}

_TEST = """\
def _judge(candidate):
    import copy
    import math

    inf, nan = math.inf, math.nan
    tolerance = {tolerance!r}
    reference = {{"__name__": "reference"}}
    exec({reference!r}, reference)

    def close(got, wanted):
        if isinstance(wanted, (list, tuple)):
            floats = tolerance or all(isinstance(item, float) for item in wanted)
            return bool(floats) and type(got) is type(wanted) and len(got) == len(wanted) and all(
                a == b or close(a, b) for a, b in zip(got, wanted))
        numbers = isinstance(got, (int, float)) and isinstance(wanted, (int, float))
        allowed = tolerance or 1e-6 * isinstance(wanted, float)
        return bool(numbers and allowed) and math.isclose(
            got, wanted, rel_tol=1e-7, abs_tol=allowed)

    inputs = [
{inputs}
    ]
    for args in inputs:
        wanted = reference[{entry_point!r}](*copy.deepcopy(args))
        got = candidate(*copy.deepcopy(args))
        assert {oracle}, f"{entry_point}{{tuple(args)!r:.200}}: got {{got!r:.200}}, expected {{wanted!r:.200}}"


_judge({entry_point})
"""  # noqa: E501

_FIELDS = string.Formatter().parse(_TEST)
_SHAPE = re.compile(
    "".join(re.escape(text) + ("" if field is None else ".*?") for text, field, *_ in _FIELDS),
    re.DOTALL,
)


def is_evalplus_test(code: str) -> bool:
    """Whether a test's code is as `evalplus_tests` writes it."""
    return _SHAPE.fullmatch(code) is not None


def evalplus_tests(record: Mapping[str, Any]) -> list[str]:
    """The code of a record's tests: on HumanEval's or MBPP's own inputs, then on evalplus's.

    Args:
        record: with `task_id`, `prompt`, `canonical_solution`, `entry_point`, `base_input`,
            `plus_input` and `atol`.
    """
    convert = _converter(str(record["task_id"]))
    entry_point = record["entry_point"]
    tests = []
    for key in ("base_input", "plus_input"):
        inputs = [convert(arguments) for arguments in record.get(key) or []]
        if inputs:
            lines = "\n".join(f"{arguments!r}," for arguments in inputs)
            tests.append(
                _TEST.format(
                    tolerance=float(record.get("atol") or 0.0),
                    reference=record["prompt"] + record["canonical_solution"],
                    entry_point=entry_point,
                    oracle=_ORACLES.get(entry_point, "got == wanted or close(got, wanted)"),
                    inputs=textwrap.indent(lines, " " * 8),
                )
            )
    return tests


def _converter(task_id: str) -> Callable[[list[Any]], list[Any]]:
    """What gives a task's arguments the types that JSON took from them."""
    family, _, digits = task_id.partition("/")
    if family.lower() != "mbpp" or not digits.isdigit():
        return lambda arguments: arguments
    number = int(digits)
    if number == _SETS:
        return lambda arguments: [[set(item) if item else {} for item in arguments[0]]]
    if number in _COMPLEX:
        types = _COMPLEX[number]
        return lambda arguments: [kind(a) for kind, a in zip(types, arguments, strict=True)]
    paths = next((paths for paths, numbers in _TUPLES.items() if number in numbers), "")
    if paths == "everywhere":
        return lambda arguments: [_all_tuples(argument) for argument in arguments]

    def convert(arguments: list[Any]) -> list[Any]:
        for path in paths.split():
            arguments = _tuples_at(arguments, path.split("/"))
        return arguments

    return convert


def _tuples_at(value: Any, path: list[str]) -> Any:
    """`value` with the lists at `path` made tuples."""
    if not path:
        return tuple(value) if isinstance(value, list) else value
    step, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {key: _tuples_at(item, rest) for key, item in value.items()}
    if not isinstance(value, list | tuple):
        return value
    return type(value)(
        _tuples_at(item, rest) if step in ("*", str(index)) else item
        for index, item in enumerate(value)
    )


def _all_tuples(value: Any) -> Any:
    return tuple(_all_tuples(item) for item in value) if isinstance(value, list) else value
