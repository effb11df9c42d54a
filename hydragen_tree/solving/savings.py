"""What was not drawn since verdicts had ended a problem, against n samples of every problem."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hydragen_tree.results.run_files import read_lines
from hydragen_tree.sample.lines import SampleLine


@dataclass(frozen=True, slots=True)
class Savings:
    """Of the problems that are ended, and so of no others.

    Args:
        samples: not drawn.
        tokens: not drawn, if those samples had become as long as the problem's others on average.
        tokens_of_n: what all problems take with n samples each, reckoned likewise.
    """

    samples: int
    tokens: int
    tokens_of_n: int


def count_savings(samples: Path, n: int, ended: Collection[str]) -> Savings:
    """Reads a file of samples.

    Args:
        samples: the file.
        n: samples a problem at the most.
        ended: task ids of problems that get no more samples.
    """
    drawn: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for line in read_lines(samples):
        if isinstance(line, SampleLine):
            drawn[line.task_id] += 1
            tokens[line.task_id] += line.record["n_tokens"]
    each = {task_id: tokens[task_id] / drawn[task_id] for task_id in drawn}
    saved = {task_id: max(n - drawn[task_id], 0) for task_id in ended if task_id in drawn}
    return Savings(
        sum(saved.values()),
        round(sum(number * each[task_id] for task_id, number in saved.items())),
        round(sum(n * mean for mean in each.values())),
    )
