"""Where the files of a run lie: one folder, under names that `hydragen show` knows."""

from dataclasses import dataclass
from pathlib import Path

from hydragen_tree.results.run_files import SAMPLES, VERDICTS


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of a run.

    Args:
        path: the folder; it need not exist yet.
    """

    path: Path

    @property
    def samples(self) -> Path:
        """Every sample, its manifest beside it."""
        return self.path / SAMPLES

    @property
    def verdicts(self) -> Path:
        """What the judge says of each."""
        return self.path / VERDICTS

    @property
    def summary(self) -> Path:
        """pass@k and figures, as JSON."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """All of it as one page."""
        return self.path / "report.html"

    @property
    def problems(self) -> Path:
        """The folder of problems that had to be imported."""
        return self.path / "problems"
