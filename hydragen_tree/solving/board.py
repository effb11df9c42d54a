"""What became of every problem of a run so far: live counts, and the tally behind pass@k."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.passk.summary import Summary, Tally


@dataclass(slots=True)
class ProblemCounts:
    """One problem so far.

    Args:
        task_id: the problem.
        drawn: samples in the file.
        judged: those of them that the judge is done with.
        accepted: those of them that are right.
        first_accepted: the smallest index of a right sample; None: not solved yet.
    """

    task_id: str
    drawn: int = 0
    judged: int = 0
    accepted: int = 0
    first_accepted: int | None = None


class Board:
    """Counts samples and verdicts by problem.

    One thread may tell of samples while another tells of verdicts, and a third looks.

    Args:
        task_ids: of the run, in its order.

    Attributes:
        problems: counts by task id.
    """

    def __init__(self, task_ids: Iterable[str]) -> None:
        self.problems = {task_id: ProblemCounts(task_id) for task_id in task_ids}
        self._tally = Tally()

    @property
    def drawn(self) -> int:
        """Samples in the file."""
        return sum(problem.drawn for problem in self.problems.values())

    @property
    def judged(self) -> int:
        """Samples that the judge is done with."""
        return sum(problem.judged for problem in self.problems.values())

    @property
    def solved(self) -> int:
        """Problems with a right sample."""
        return sum(problem.accepted > 0 for problem in self.problems.values())

    def drew(self, task_id: str, number: int = 1) -> None:
        """Counts samples that stand in the file."""
        self.problems[task_id].drawn += number

    def add(self, record: Mapping[str, Any]) -> None:
        """Counts one verdict, as `Tally.add` does.

        Raises:
            InputError: it is of no problem of the run.
        """
        task_id, index = record["task_id"], record["sample_index"]
        if task_id not in self.problems:
            raise InputError(
                f"{task_id!r} is no problem of this run, and has verdicts in its folder"
            )
        self._tally.add(record)
        problem = self.problems[task_id]
        problem.judged += 1
        if record["verdict"] == "AC":
            problem.accepted += 1
            first = problem.first_accepted
            problem.first_accepted = index if first is None else min(first, index)

    def is_met(self, task_id: str) -> bool:
        """Whether a problem needs no more samples: see `Tally.is_met`."""
        return self._tally.is_met(task_id)

    def summary(self, ks: Sequence[int] = ()) -> Summary:
        """pass@k of what is judged so far: see `Tally.summary`."""
        return self._tally.summary(ks)
