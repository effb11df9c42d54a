"""What is kept of one problem while its verdicts are counted."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.errors import InputError
from hydragen_tree.judge.normal_form import normal_form
from hydragen_tree.passk.evidence import Evidence, FixedNumber
from hydragen_tree.passk.stopping import RIGHT, UNJUDGED, WRONG, Stopping, without_gap


class Counts(NamedTuple):
    """What estimates are made of."""

    task_id: str
    evidence: Evidence
    false_accept_rate: float | None


@dataclass(frozen=True, slots=True)
class Stopped:
    """What counts of a problem whose samples were drawn by a rule.

    Args:
        rule: the rule.
        is_met: it has ended the problem, or all samples are there.
        evidence: what its samples say, those that count: the first ones by index.
    """

    rule: Stopping
    is_met: bool
    evidence: Evidence


@dataclass(slots=True)
class ProblemTally:
    """What is kept of a problem: counts, eight bytes a distinct program, and sixteen a sample
    where their order counts."""

    task_id: str
    difficulty: str | None = None
    false_accept_rate: float | None = None
    until_solved: bool = False
    verdicts: Counter[str] = field(default_factory=Counter)
    by_variant: dict[int, list[int]] = field(default_factory=dict)  # variant -> [samples, accepted]
    programs: Counter[int] = field(default_factory=Counter)
    verdict_of: dict[int, str] = field(default_factory=dict)
    stopping: Stopping | None = None
    outcomes: "array[int]" = field(default_factory=lambda: array("q"))  # index, outcome, index, ...

    def add(self, status: str, record: Mapping[str, Any]) -> None:
        """Counts one verdict: see `Tally.add`.

        Raises:
            InputError: the rate of false accepts is none.
        """
        self.difficulty = record.get("difficulty") or self.difficulty
        rate = record.get("false_accept_rate")
        if rate is not None:
            if not isinstance(rate, int | float) or not 0 <= rate <= 1:
                raise InputError(f"{self.task_id}: false_accept_rate {rate!r}: expected 0 to 1")
            self.false_accept_rate = float(rate)
        self.until_solved = self.until_solved or bool(record.get("until_solved"))
        self.verdicts[status] += 1
        self._add_in_order(status, record)
        if status == "IE":
            return
        of_variant = self.by_variant.setdefault(int(record.get("prompt_variant") or 0), [0, 0])
        of_variant[0] += 1
        of_variant[1] += status == "AC"
        language = str(record.get("language") or "python")
        program = _fingerprint(normal_form(str(record.get("solution") or ""), language))
        self.programs[program] += 1
        self.verdict_of.setdefault(program, status)

    def _add_in_order(self, status: str, record: Mapping[str, Any]) -> None:
        rule, index = Stopping.of_record(record.get("stopping")), record.get("sample_index")
        if rule is None or not isinstance(index, int):
            return
        if self.stopping is None or self.stopping.n < rule.n:  # it may have grown
            self.stopping = rule
        self.outcomes.extend((index, {"AC": RIGHT, "IE": UNJUDGED}.get(status, WRONG)))

    def majority(self) -> tuple[int, int]:
        """The most frequent program's fingerprint and how many samples are that; zeros for none.

        Of programs that are equally frequent it is one and the same, in whatever order their
        verdicts came.
        """
        count, program = max(((n, one) for one, n in self.programs.items()), default=(0, 0))
        return program, count

    @property
    def evidence(self) -> Evidence:
        """What its samples say."""
        if self.stopping is not None:
            return self.stopping.evidence(self.in_order())
        samples = self.verdicts.total() - self.verdicts["IE"]
        return FixedNumber(samples, self.verdicts["AC"])

    @property
    def counted(self) -> Counts:
        """What its estimates are made of."""
        return Counts(self.task_id, self.evidence, self.false_accept_rate)

    def in_order(self) -> NDArray[np.int8]:
        """Outcomes by index, up to the first that is missing; of a rule's samples alone."""
        return without_gap(zip(self.outcomes[::2], self.outcomes[1::2], strict=True))

    @property
    def is_met(self) -> bool:
        """Whether its rule has ended it."""
        return self.stopping is not None and self.stopping.is_met(self.in_order())

    def stopped(self) -> Stopped | None:
        """What counts of it, unless all does."""
        rule = self.stopping
        if rule is None:
            return None
        evidence = self.evidence
        if (
            not rule.looks_at_verdicts
            and evidence.samples == self.verdicts.total() - self.verdicts["IE"]
        ):
            return None
        return Stopped(rule, self.is_met, evidence)


def by_frequency(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts, the largest first and equal ones by name, so that it does not tell who came first."""
    return {name: n for name, n in sorted(counts.items(), key=lambda one: (-one[1], one[0])) if n}


def _fingerprint(program: str) -> int:
    """Eight bytes for a program."""
    return int.from_bytes(
        hashlib.blake2b(program.encode(errors="surrogatepass"), digest_size=8).digest()
    )
