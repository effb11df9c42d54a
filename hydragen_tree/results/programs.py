"""The different programs among the samples of a problem, the most frequent first."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hydragen_tree.judge.normal_form import normal_form
from hydragen_tree.passk.problem_tally import by_frequency
from hydragen_tree.results.judged_sample import JudgedSample


@dataclass(frozen=True, slots=True)
class DistinctProgram:
    """One program, and the samples that are it.

    Args:
        samples: by their index; the first stands for all.
    """

    samples: tuple[JudgedSample, ...]

    @property
    def first(self) -> JudgedSample:
        """The sample with the lowest index that has a verdict, or else the lowest."""
        return next((s for s in self.samples if s.verdict), self.samples[0])

    @property
    def verdicts(self) -> Counter[str]:
        """Samples by verdict: more than one where a time near the limit went both ways."""
        return Counter(sample.status for sample in self.samples if sample.status)

    @property
    def is_accepted(self) -> bool:
        """Whether it was found right."""
        return "AC" in self.verdicts

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        verdict = self.first.verdict
        return {
            "count": len(self.samples),
            "samples": [sample.index for sample in self.samples],
            "verdicts": by_frequency(self.verdicts),
            "failed_test": verdict.failed_test if verdict else None,
            "message": verdict.message if verdict else None,
            "language": self.first.language,
            "solution": self.first.program,
        }


def distinct_programs(samples: Iterable[JudgedSample]) -> list[DistinctProgram]:
    """Groups the samples of one problem by their program.

    Args:
        samples: of one problem, by their index.

    Returns:
        The most frequent program first; among equals the one that was drawn first.
    """
    groups: dict[tuple[str, str], list[JudgedSample]] = {}
    for sample in samples:
        key = sample.language, normal_form(sample.program, sample.language)
        groups.setdefault(key, []).append(sample)
    found = [DistinctProgram(tuple(group)) for group in groups.values()]
    return sorted(found, key=lambda one: (-len(one.samples), one.samples[0].index))
