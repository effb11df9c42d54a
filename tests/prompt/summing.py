"""A problem with two samples and a secret test."""

from typing import Any

from hydragen_tree.problem.reading import problem_from_document
from hydragen_tree.problem.types import Problem


def problem(task_id: str = "sum", **keys: Any) -> Problem:
    document = {
        "id": task_id,
        "statement": f"Solve {task_id}.\n",
        "tests": [
            {"input": "1 2\n", "output": "3\n", "sample": True},
            {"input": "5 6\n", "output": "11\n", "sample": True},
            {"input": "secret\n", "output": "secret\n"},
        ],
    }
    return problem_from_document({**document, **keys}, "")
