"""Which problem a sample belongs to.

By its task id, among the problems that were named; else in the file that the sample itself names;
else in the one that the manifest beside the samples names.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hydragen_tree.errors import InputError, Setting
from hydragen_tree.problem.reading import load_problems, problem_from_document
from hydragen_tree.problem.types import Problem
from hydragen_tree.sample.lines import SampleLine
from hydragen_tree.sample.manifest import Manifest, Task, manifest_path

Guard = Callable[[Path, Iterable[Problem]], None]
_DATASETS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


class ProblemIndex:
    """Finds problems by task id.

    Args:
        sources: problem files, directories, packages, globs, or data sets in JSON.
        samples: the samples' file, beside which a manifest and the problems may lie.
        guard: told of every file before anything is judged by it, with the problems that it holds;
            its error is that of whoever asked. None: nothing will be written, and files that only
            the samples name are read when one of their problems is sought.

    Attributes:
        refused: records of data sets that are no problems, and why.

    Raises:
        InputError: a source holds no problem, or a broken one.
    """

    def __init__(
        self, sources: Sequence[str], samples: Path | None, guard: Guard | None = None
    ) -> None:
        self._guard: Guard = guard or (lambda path, problems: None)
        self.refused: list[str] = []
        self._problems: dict[str, Problem] = {}
        self._from_files: dict[str, dict[str, Problem] | InputError] = {}
        self._tasks = _tasks_of(samples)
        self._drawn_from: dict[str, dict[str, Task]] = {}  # file to its tasks in the manifest
        for task_id, task in self._tasks.items():
            if task.path:
                self._drawn_from.setdefault(task.path, {})[task_id] = task
        self._place = Path() if samples is None else samples.parent
        for source in sources:
            found = [*self._load(source)]
            self._guard(Path(source), found)
            for problem in found:
                if problem.id in self._problems:
                    raise InputError(
                        f"{problem.id!r} is there twice", setting="problems", value=source
                    )
                self._problems[problem.id] = problem
        for path in self._drawn_from if guard else ():
            self._file(path)  # now, so that it is guarded before anything is written

    def find(self, line: SampleLine) -> Problem | InputError:
        """The problem of a sample, or why there is none."""
        for name in (line.task_id, f"Mbpp/{line.task_id}"):  # MBPP's samples bear numbers
            if name in self._problems:
                return self._problems[name]
        task = self._tasks.get(line.task_id)
        path = line.record.get("problem") or (task.path if task else None)
        if not isinstance(path, str):
            return InputError(
                f"no problem has the task id {line.task_id!r}; name its file with ",
                Setting("problems"),
            )
        found = self._file(path)
        if isinstance(found, InputError):
            return found
        if line.task_id not in found:
            return InputError(f"{path} holds no problem with the task id {line.task_id!r}")
        return found[line.task_id]

    def changed(self, problem: Problem) -> bool:
        """Whether a problem is not as it was when the samples were drawn."""
        task = self._tasks.get(problem.id)
        return task is not None and task.sha256 not in (None, problem.content_hash)

    def _file(self, path: str) -> dict[str, Problem] | InputError:
        if path not in self._from_files:
            self._from_files[path] = self._read(path)
        return self._from_files[path]

    def _read(self, name: str) -> dict[str, Problem] | InputError:
        """The problems of a file that samples name."""
        first: tuple[str, dict[str, Problem] | InputError] | None = None
        for place in self._places(name):
            if not Path(place).exists():
                continue
            found = self._read_from(place)
            if self._is_as_drawn(name, found):
                return self._guarded(place, found)
            first = first or (place, found)
        return self._guarded(*(first or (name, self._read_from(name))))

    def _places(self, name: str) -> Iterator[str]:
        """Where a named file may be: there, else in or above the samples' folder, for where all of
        it was moved."""
        yield name
        path = Path(name)
        tails = [path]
        if path.is_absolute():
            tails = [Path(*path.parts[n:]) for n in range(1, len(path.parts))]
        for folder in (self._place, *self._place.resolve().parents):
            yield from (str(folder / tail) for tail in tails)

    def _read_from(self, place: str) -> dict[str, Problem] | InputError:
        try:
            return {problem.id: problem for problem in self._load(place)}
        except InputError as error:
            return InputError(f"{error}; name the problem's file with ", Setting("problems"))

    def _is_as_drawn(self, name: str, found: dict[str, Problem] | InputError) -> bool:
        """Whether a file holds the problems that the manifest says were read from it."""
        if isinstance(found, InputError):
            return False
        return all(
            task_id in found and task.sha256 in (None, found[task_id].content_hash)
            for task_id, task in self._drawn_from.get(name, {}).items()
        )

    def _guarded(
        self, place: str, found: dict[str, Problem] | InputError
    ) -> dict[str, Problem] | InputError:
        self._guard(Path(place), () if isinstance(found, InputError) else found.values())
        return found

    def _load(self, source: str) -> Iterator[Problem]:
        if not source.endswith(_DATASETS):
            yield from load_problems([source])
            return
        from hydragen_tree.problem.formats.datasets import read_dataset

        for where, found in read_dataset(Path(source)):
            try:
                if isinstance(found, InputError):
                    raise found
                yield problem_from_document(found, where)
            except InputError as error:
                self.refused.append(f"{where}: {error}")


def _tasks_of(samples: Path | None) -> dict[str, Task]:
    path = manifest_path(samples) if samples is not None else None
    if path is None or not path.is_file():
        return {}
    return dict(Manifest.read(path).tasks)
