"""Which files belong to a run, from any one of them.

A run is named by its samples file, by its verdicts file, or by a folder that holds both as
`samples.jsonl` and `verdicts.jsonl`. The other file is looked for beside it, under the names that
people give them:

    samples.jsonl  easy-samples.jsonl   out.jsonl             out.jsonl
    verdicts.jsonl easy-verdicts.jsonl  out.verdicts.jsonl    verdicts.jsonl

A file found so is taken only if it is about the same samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from hydragen_tree.errors import InputError
from hydragen_tree.sample.foreign_files import open_samples
from hydragen_tree.sample.lines import BrokenLine, SampleLine, read_samples
from hydragen_tree.sample.manifest import manifest_path

SAMPLES, VERDICTS = "samples.jsonl", "verdicts.jsonl"
_MANIFEST_ENDING = manifest_path(Path("x")).name.removeprefix("x")
_LINES_TRIED = 1000  # lines that are no samples before a file is taken for something else


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of a run; what is not None is there.

    Args:
        samples: as the sampler wrote them.
        verdicts: as the judge wrote them; each line holds its sample's too.
        manifest: beside the samples.
        passed_over: verdicts found beside the samples that are about other samples.
    """

    samples: Path | None
    verdicts: Path | None
    manifest: Path | None
    passed_over: Path | None = None

    @property
    def name(self) -> Path:
        """The file by which messages call the run."""
        found = self.samples or self.verdicts
        assert found is not None
        return found

    def named(self) -> Iterator[tuple[str, Path]]:
        """The files, and what each is."""
        files = (
            ("the file of the samples", self.samples),
            ("the file of the verdicts", self.verdicts),
            ("the manifest of the samples", self.manifest),
        )
        yield from ((what, path) for what, path in files if path)

    def to_json(self) -> dict[str, str | None]:
        """The paths."""
        paths = {"samples": self.samples, "verdicts": self.verdicts, "manifest": self.manifest}
        return {key: str(path) if path else None for key, path in paths.items()}


def find_run(path: Path) -> RunFiles:
    """The files of the run that a path names.

    Raises:
        InputError: there is no such path, or it holds no samples.
    """
    if path.is_dir():
        inside = path / SAMPLES
        if not inside.is_file() and not (inside := path / VERDICTS).is_file():
            raise InputError(f"{path}: holds no {SAMPLES}; name a run's folder or its samples file")
        path = inside
    first = _first_line(path)
    if first is None:
        raise InputError(
            f"{path}: holds no samples; name a file that hydragen-sample or hydragen-eval wrote"
        )
    if "verdict" in first.record:
        samples = next((p for p in _samples_beside(path) if _holds(p, first)), None)
        return RunFiles(samples, path, _manifest_of(samples or path))
    passed_over = None
    for beside in _verdicts_beside(path):
        found = _first_line(beside)
        if found is None or "verdict" not in found.record:
            continue
        if _holds(path, found):
            return RunFiles(path, beside, _manifest_of(path))
        passed_over = passed_over or beside
    return RunFiles(path, None, _manifest_of(path), passed_over)


def read_lines(path: Path) -> Iterator[SampleLine | BrokenLine]:
    """The lines of a file of samples or verdicts.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open_samples(path) as raw, BufferedReader(raw) as file:
            yield from read_samples(file)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; name a samples file, a verdicts file or a "
            "run's folder"
        ) from None


def _first_line(path: Path) -> SampleLine | None:
    for tried, line in enumerate(read_lines(path)):
        if isinstance(line, SampleLine):
            return line
        if tried == _LINES_TRIED:
            break
    return None


def _holds(samples: Path, sought: SampleLine) -> bool:
    """Whether the sample stands in a file."""
    for line in read_lines(samples):
        if not isinstance(line, BrokenLine) and (line.task_id, line.sample_index) == (
            sought.task_id,
            sought.sample_index,
        ):
            return _is_same(line, sought)
    return False


def _is_same(one: SampleLine, other: SampleLine) -> bool:
    """Whether two lines of one task and index are the same sample, judged or not."""
    if one.completion is not None and other.completion is not None:
        return one.completion == other.completion
    first, second = ("".join((line.solution or "").split()) for line in (one, other))
    # The judge puts its problem's beginning before a body, and indents it.
    return first in second or second in first


def _verdicts_beside(samples: Path) -> Iterator[Path]:
    names = [
        samples.name.replace("samples", "verdicts"),
        f"{samples.stem}.verdicts{samples.suffix}",
        VERDICTS,
    ]
    yield from _existing(samples, names)


def _samples_beside(verdicts: Path) -> Iterator[Path]:
    names = [
        verdicts.name.replace("verdicts", "samples"),
        f"{verdicts.stem.removesuffix('.verdicts')}{verdicts.suffix}",
        SAMPLES,
    ]
    described = sorted(p.name for p in verdicts.parent.glob(f"*{_MANIFEST_ENDING}"))
    yield from _existing(verdicts, names + [n.removesuffix(_MANIFEST_ENDING) for n in described])


def _existing(beside: Path, names: list[str]) -> Iterator[Path]:
    paths = (beside.with_name(name) for name in dict.fromkeys(names) if name != beside.name)
    yield from (path for path in paths if path.is_file())


def _manifest_of(samples: Path) -> Path | None:
    path = manifest_path(samples)
    return path if path.is_file() else None
