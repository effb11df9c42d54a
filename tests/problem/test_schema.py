"""The JSON Schema of problem files says what the reader says."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

import hydragen_tree
from hydragen_tree.errors import InputError
from hydragen_tree.problem.reading import load_problem
from hydragen_tree.problem.types import problem_json_schema

ROOM = Path(__file__).parents[2] / "problems"
SHIPPED = Path(hydragen_tree.__file__).parent / "problem.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(problem_json_schema())

SHORT = "id: a\nstatement: S\ntests: [{input: a, output: b}]\n"
POOL = "pool: [{id: x, statement: X, solution: x}, {id: y, statement: Y, solution: y}]"
RIGHT = [
    "",
    "checker: float",
    "checker: {type: tokens, case_sensitive: false}",
    "limits: {time_s: 1.5, memory_mib: 64}",
    f"few_shot: {{{POOL}, shots: 1, variants: 2}}",
    f"few_shot: {{{POOL}, variants: [[x, y], []]}}",
    "submissions: [{verdict: TLE, code: x}]",
    "difficulty: hard",
    "false_accept_rate: 0.001",
]
WRONG = [
    "checker: magic",
    "checker: {case_sensitive: false}",
    "checker: {type: tokens, abs_tol: 1}",
    "limits: {time_s: 0}",
    "limits: {time: 1}",
    "few_shot: {shots: 1}",
    f"few_shot: {{{POOL}, variants: all}}",
    f"few_shot: {{{POOL}, variants: 0}}",
    "submissions: [{verdict: OK, code: x}]",
    "difficulty: 3",
    "false_accept_rate: 1.5",
    "false_accept_rate: -0.1",
    "false_accept_rate: rare",
    "source: x",
    "solution: 3",
]


def plain(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path)


def test_shipped_file_is_up_to_date() -> None:
    remedy = "hydragen schema -o hydragen_tree/problem.schema.json"
    assert json.loads(SHIPPED.read_text(encoding="utf-8")) == problem_json_schema(), remedy


def test_it_is_a_valid_schema_and_describes_every_key() -> None:
    schema = problem_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for part in (schema, *schema["$defs"].values()):
        for name, key in part["properties"].items():
            assert key.get("description") or name == "type", f"{part['title']}.{name}"


def test_it_accepts_the_shipped_problems() -> None:
    files = sorted(ROOM.glob("*.yaml"))
    assert files
    for path in files:
        VALIDATOR.validate(plain(path))


@pytest.mark.parametrize("text", RIGHT)
def test_both_accept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(SHORT + text, encoding="utf-8")
    VALIDATOR.validate(plain(path))
    load_problem(path)


@pytest.mark.parametrize("text", WRONG)
def test_both_reject(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(SHORT + text, encoding="utf-8")
    assert list(VALIDATOR.iter_errors(plain(path)))
    with pytest.raises(InputError):
        load_problem(path)
