"""Where the samples of two runs part that should be the same.

With equal settings, model and prompts sample i of a task has the same random numbers in both runs.
It differs only where the models' sums did: another type, device, batch or version. The place where
its texts part says how far the two agree.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hydragen_tree.judge.verdict_file import program_digest
from hydragen_tree.results.judged_sample import JudgedSample
from hydragen_tree.results.results import Results
from hydragen_tree.sample.lines import SampleLine
from hydragen_tree.sample.manifest import Manifest

MOST_LOOKED_AT = 10_000  # samples that differ whose texts are held in memory
_CONTEXT = 20  # characters, or tokens, that are shown of either

Key = tuple[str, int]  # task id, sample index


@dataclass(frozen=True, slots=True)
class Parting:
    """A sample that is not the same in both runs.

    Args:
        task_id: its task.
        sample_index: its index.
        unit: what the position counts: tokens where both files hold token ids, else characters.
        position: of the first that differs, from 0.
        before: what both have just before it.
        first: how the first run goes on.
        second: how the second does.
        logprobs: of the first token that differs, in either run; None where a file does not say.
    """

    task_id: str
    sample_index: int
    unit: Literal["token", "character"]
    position: int
    before: str
    first: str
    second: str
    logprobs: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Partings:
    """How far the samples of two runs are the same.

    Args:
        compared: samples that both have, of tasks with equal prompts.
        equal: those of them that are the same.
        earliest: of the others the one that parts earliest; None where all are the same.
        median_position: of the others; None where all are the same.
        looked_at: how many of the others that is said of: the first 10,000.
    """

    compared: int
    equal: int
    earliest: Parting | None
    median_position: int | None
    looked_at: int


def why_not_equal(first: Manifest | None, second: Manifest | None) -> str | None:
    """Why samples of two runs are not meant to be the same; None if they are.

    Type, device and mode of the model may differ: how far the samples agree then is what is asked.
    """
    if first is None or second is None:
        return "the settings of a run are not known: it has no manifest"
    of_model = ("dtype", "kv_dtype", "device", "batch_invariant")
    may = ("tasks.", "settings.logprobs", *(f"model.{key}" for key in of_model))
    for key, was, now in first.differences(second):
        if not key.startswith(may):
            return f"{key} differs: {was}, {now}"
    if not equal_tasks(first, second):
        return "no task has the same prompts in both"
    return None


def equal_tasks(first: Manifest, second: Manifest) -> set[str]:
    """Tasks that were sampled from the same prompts in both runs."""
    return {
        task_id
        for task_id, task in first.tasks.items()
        if task_id in second.tasks and task.prompts == second.tasks[task_id].prompts
    }


class Digests:
    """Remembers what the samples of the first run were, and which of the second's are others.

    Args:
        tasks: those whose samples can be compared.
    """

    def __init__(self, tasks: set[str]) -> None:
        self._tasks = tasks
        self._known: dict[Key, bytes] = {}
        self.compared = 0
        self.differ: list[Key] = []

    def of_first(self, samples: Iterable[JudgedSample]) -> Iterator[JudgedSample]:
        """Passes the first run's samples on."""
        for judged in samples:
            if judged.line.task_id in self._tasks:
                self._known[_key(judged.line)] = _digest(judged.line)
            yield judged

    def of_second(self, samples: Iterable[JudgedSample]) -> Iterator[JudgedSample]:
        """Passes the second run's samples on."""
        for judged in samples:
            known = self._known.get(_key(judged.line))
            if known is not None:
                self.compared += 1
                if known != _digest(judged.line):
                    self.differ.append(_key(judged.line))
            yield judged


def find_partings(first: Results, second: Results, digests: Digests) -> Partings:
    """Reads the samples that differ once more, and finds where.

    Args:
        first: the first run.
        second: the second.
        digests: that have seen the samples of both.
    """
    order = sorted(digests.differ)[:MOST_LOOKED_AT]
    texts = _lines_of(first, order)
    found = [
        part(texts[key], line) for key, line in _lines_of(second, order).items() if key in texts
    ]
    found.sort(key=lambda one: (one.position, one.task_id, one.sample_index))
    equal = digests.compared - len(digests.differ)
    if not found:
        return Partings(digests.compared, equal, None, None, 0)
    middle = found[len(found) // 2].position
    return Partings(digests.compared, equal, found[0], middle, len(found))


def part(first: SampleLine, second: SampleLine) -> Parting:
    """Where two samples of one task and index part; at the end of the shorter if it begins so."""
    a_ids, b_ids = (line.record.get("token_ids") for line in (first, second))
    if isinstance(a_ids, list) and isinstance(b_ids, list) and a_ids != b_ids:
        at = _first_difference(a_ids, b_ids)
        near = slice(max(0, at - _CONTEXT), at), slice(at, at + _CONTEXT)
        pieces = (a_ids[near[0]], a_ids[near[1]], b_ids[near[1]])
        before, one, other = (" ".join(map(str, piece)) for piece in pieces)
        logprobs = _logprobs_at(at, first, second)
        named = first.task_id, first.sample_index
        return Parting(*named, "token", at, before, one, other, logprobs)
    a, b = _text(first), _text(second)
    at = _first_difference(a, b)
    shown = a[max(0, at - _CONTEXT) : at], a[at : at + _CONTEXT], b[at : at + _CONTEXT]
    return Parting(first.task_id, first.sample_index, "character", at, *shown)


def _logprobs_at(at: int, *lines: SampleLine) -> tuple[float, float] | None:
    """The log-probability of a token in both samples, where both files have it."""
    found = [line.record.get("token_logprobs") for line in lines]
    known = [own[at] for own in found if isinstance(own, list) and len(own) > at]
    return (known[0], known[1]) if len(known) == len(lines) else None


def _first_difference(a: Sequence[object], b: Sequence[object]) -> int:
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _lines_of(results: Results, keys: Sequence[Key]) -> Mapping[Key, SampleLine]:
    wanted = set(keys)
    if not wanted:
        return {}
    return {
        _key(judged.line): judged.line
        for judged in results.samples()
        if _key(judged.line) in wanted
    }


def _key(line: SampleLine) -> Key:
    return line.task_id, line.sample_index


def _text(line: SampleLine) -> str:
    """All that was drawn, the thought before the answer included."""
    reasoning = line.record.get("reasoning") or ""
    return reasoning + (line.completion if line.completion is not None else line.solution or "")


def _digest(line: SampleLine) -> bytes:
    return program_digest(_text(line))
