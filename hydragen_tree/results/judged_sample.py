"""A sample together with what the judge said of it."""

from dataclasses import dataclass

from hydragen_tree.judge.verdicts import Verdict
from hydragen_tree.sample.lines import SampleLine


@dataclass(frozen=True, slots=True)
class JudgedSample:
    """A sample, and what the judge said of it.

    Args:
        line: as it stands in the file.
        verdict: None where it is not judged yet.
    """

    line: SampleLine
    verdict: Verdict | None

    @property
    def index(self) -> int:
        """Its sample index."""
        return self.line.sample_index

    @property
    def program(self) -> str:
        """The whole program, as it was or would be judged."""
        return self.line.program()

    @property
    def language(self) -> str:
        """What the program is written in."""
        return str(self.line.record.get("language") or "python")

    @property
    def status(self) -> str | None:
        """AC, WA, ...; None where it is not judged yet."""
        return self.verdict.status if self.verdict else None
