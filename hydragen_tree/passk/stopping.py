"""When no more samples of a problem are drawn, and what those that were are worth.

A problem's samples are taken in the order of their indices, whatever order they were finished or
judged in: those of its first samples that have verdicts, up to the first one that is missing. So
the samples that count do not depend on how long others took, and what was drawn beyond the end is
kept and not counted. Infrastructure errors count as not drawn.

A limit of time ends a run without looking at its verdicts; it is no rule here. Where it cuts a run
off, the samples up to there count as if their number had been planned: right in so far as time does
not depend on what is right.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.errors import InputError, Setting
from hydragen_tree.passk.evidence import EndRule, Evidence, FixedNumber, GroupSequential

FIRST_LOOK = 32  # samples of a problem after which it is first asked whether it needs more
WRONG, RIGHT, UNJUDGED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Stopping:
    """A rule, which looks at one problem's verdicts alone.

    Args:
        n: samples of a problem at the most.
        until_solved: end with so many accepted samples, asked at `looks`.
        until_width: end when the 95 % interval of pass@1 is at most so wide, asked at `looks`.

    Raises:
        InputError: a value is out of range, or both rules are given.
    """

    n: int
    until_solved: int | None = None
    until_width: float | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError("expected an integer >= 1", setting="n", value=self.n)
        if self.until_solved is not None and self.until_solved < 1:
            raise InputError(
                "expected an integer >= 1", setting="until_solved", value=self.until_solved
            )
        if self.until_width is not None and not 0 < self.until_width < 1:
            raise InputError(
                "expected a number between 0 and 1", setting="until_width", value=self.until_width
            )
        if self.until_solved is not None and self.until_width is not None:
            raise InputError(
                "is another rule than ",
                Setting("until_solved"),
                "; choose one",
                setting="until_width",
            )

    @classmethod
    def of_record(cls, record: Any) -> "Stopping | None":
        """What a line says under `stopping`; None where it says nothing of the kind."""
        if not isinstance(record, Mapping):
            return None
        try:
            return cls(**record)
        except TypeError:
            return None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types, without rules that are not given."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @property
    def looks_at_verdicts(self) -> bool:
        """Whether there is a rule besides n."""
        return self.until_solved is not None or self.until_width is not None

    def looks(self) -> tuple[int, ...]:
        """Numbers of samples after which more are drawn, or not: 32, 64, 128, ... n."""
        sizes, size = [], FIRST_LOOK
        while size < self.n:
            sizes.append(size)
            size *= 2
        return (*sizes, self.n)

    def is_met(self, outcomes: NDArray[np.int8]) -> bool:
        """Whether a problem needs no more samples.

        Args:
            outcomes: WRONG, RIGHT or UNJUDGED by index, from 0 without a gap.
        """
        return outcomes.size >= self.n or self._ended(outcomes)[1]

    def evidence(self, outcomes: NDArray[np.int8]) -> Evidence:
        """What the samples say, those beyond the end left out.

        Args:
            outcomes: see `is_met`.
        """
        return self._ended(outcomes[: self.n])[0]

    def _ended(self, outcomes: NDArray[np.int8]) -> tuple[Evidence, bool]:
        """What the samples say, and whether the rule has ended them."""
        judged = np.cumsum(outcomes != UNJUDGED)
        right = np.cumsum(outcomes == RIGHT)
        if not judged.size or not judged[-1]:
            return FixedNumber(0, 0), False
        samples, accepted = int(judged[-1]), int(right[-1])
        if not self.looks_at_verdicts:
            return FixedNumber(samples, accepted), False
        rule, planned = EndRule(self.until_solved, self.until_width), self.looks()
        sizes: list[int] = []  # of samples with a verdict
        for number, look in enumerate(planned):
            if look > outcomes.size:
                break
            size, at_look = int(judged[look - 1]), int(right[look - 1])
            if not size or (sizes and size == sizes[-1]):
                continue
            sizes.append(size)
            if rule.ends(size)[at_look]:
                later = [size + more - look for more in planned[number + 1 :]]
                return GroupSequential(size, at_look, (*sizes, *later), rule), True
        if not sizes or samples > sizes[-1]:
            sizes.append(samples)  # cut off here, as if that had been planned
        return GroupSequential(samples, accepted, tuple(sizes), rule), False


def without_gap(outcomes: Iterable[tuple[int, int]]) -> NDArray[np.int8]:
    """Outcomes by index, from 0 up to the first index that is missing.

    Args:
        outcomes: (index, outcome), each index once, in any order.
    """
    by_index = sorted(outcomes)
    known = [outcome for place, (index, outcome) in enumerate(by_index) if place == index]
    return np.array(known, np.int8)
