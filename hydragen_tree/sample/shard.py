"""Which samples of a run one process draws, where several share it.

The samples of a run are put into one order: by task id, and by sample index within each. Shard i of
k is the i-th of k contiguous pieces of it, whose sizes differ by one at the most. So it depends on
the task ids and n alone; a problem may be cut anywhere; and the samples of a shard share prompts.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from hydragen_tree.errors import InputError, Setting

_MOST_SAMPLES = 10_000_000  # some 60 bytes of each are held from the start


class Part(Protocol):
    """Some of the samples of a run: a `Shard`, or a piece that a worker was given."""

    def ranges(self, task_ids: Iterable[str], n: int) -> dict[str, range]:
        """By task id, the indices of its samples, for the tasks that it has samples of."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a run: one of several equal parts of a range of samples of every problem.

    Shards of one run are numbered from 1; samples from 0, as in their `sample_index`.

    Args:
        number: which of the parts, from 1 to `of`.
        of: how many parts there are.
        first: the smallest sample index drawn of any problem.
        last: the greatest, itself included; None: n - 1.

    Raises:
        InputError: there is no such shard or range.
    """

    number: int = 1
    of: int = 1
    first: int = 0
    last: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise InputError(
                "expected I/K, shard I of K, with I from 1 to K",
                setting="shard",
                value=f"{self.number}/{self.of}",
            )
        if self.first < 0:
            raise InputError("expected an integer >= 0", setting="first", value=self.first)
        if self.last is not None and self.last < self.first:
            raise InputError(
                f"expected at least {self.first}, the first sample", setting="last", value=self.last
            )

    @classmethod
    def parse(cls, text: str | None, first: int | None = None, last: int | None = None) -> Self:
        """The shard that a command line names.

        Args:
            text: `2/4`, the second of four; None: all of the range.
            first: see `Shard`; None: 0.
            last: see `Shard`.

        Raises:
            InputError: the text means none.
        """
        number, of = 1, 1
        if text is not None:
            match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text, re.ASCII)
            if match is None:
                raise InputError(
                    "expected I/K, shard I of K, such as 2/4", setting="shard", value=text
                )
            number, of = int(match[1]), int(match[2])
        return cls(number, of, first or 0, last)

    def within(self, n: int) -> "Shard | None":
        """The same with its last sample named, as a manifest keeps it; None if it is all of a run.

        Raises:
            InputError: a run of n samples a problem has no such samples.
        """
        for setting, index in (("first", self.first), ("last", self.last)):
            if index is not None and index >= n:
                raise InputError(
                    f"expected at most {n - 1}: with n = {n} samples are numbered 0 to {n - 1}",
                    setting=setting,
                    value=index,
                )
        last = n - 1 if self.last is None else self.last
        if (self.of, self.first, last) == (1, 0, n - 1):
            return None
        return Shard(self.number, self.of, self.first, last)

    def ranges(self, task_ids: Iterable[str], n: int) -> dict[str, range]:
        """The indices of the shard's samples.

        Args:
            task_ids: of the whole run, in any order, repeats allowed.
            n: samples a task, of the whole run.

        Returns:
            By task id, for the tasks that the shard has samples of, sorted.

        Raises:
            InputError: there are more shards than samples, or n is too small for the range.
        """
        self.within(n)
        names = sorted(set(task_ids))
        each = (n if self.last is None else self.last + 1) - self.first
        total = each * len(names)
        if self.of > total:
            raise InputError(
                f"expected at most {total} shards, as the run has {total} samples",
                setting="shard",
                value=f"{self.number}/{self.of}",
            )
        begin, end = (total * number // self.of for number in (self.number - 1, self.number))
        found = {}
        for place in range(begin // each, -(-end // each)):
            start = self.first + max(begin - place * each, 0)
            stop = self.first + min(end - place * each, each)
            found[names[place]] = range(start, stop)
        return found

    def __str__(self) -> str:
        """`2/4`, `samples 0 to 49`, `2/4 of samples 0 to 49`."""
        last = "n - 1" if self.last is None else self.last
        samples = f"samples {self.first} to {last}"
        return samples if self.of == 1 else f"{self.number}/{self.of} of {samples}"


def sample_ranges(task_ids: Iterable[str], n: int, shard: Part | None) -> dict[str, range]:
    """The sample indices that a process draws, by task id; without a shard all of them.

    Raises:
        InputError: see `Shard.ranges`.
    """
    return shard.ranges(task_ids, n) if shard else {name: range(n) for name in task_ids}


def check_number(ranges: Mapping[str, range], n: int) -> None:
    """Refuses more samples than a process holds.

    Args:
        ranges: by task id, the indices of its samples.
        n: as asked for.

    Raises:
        InputError: more than 10 million.
    """
    # not by `len`, which ends with what an index can count
    if (n_samples := sum(own.stop - own.start for own in ranges.values())) > _MOST_SAMPLES:
        raise InputError(
            f"expected at most {_MOST_SAMPLES} samples in one process, these are {n_samples}; "
            "draw them in several, each with its own ",
            Setting("shard"),
            setting="n",
            value=n,
        )
