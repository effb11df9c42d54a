"""The files of one run that was drawn in parts, joined into the file of the whole run.

Files are read twice, from front to back: once to learn which samples they hold, once to copy them.
In between only the place of every sample is held, 12 bytes each.

Two lines are the same sample if they agree in everything but the path of the problem, which may
differ between machines, and the log-probabilities, whose last digits depend on the batch.
"""

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hydragen_tree.errors import InputError, first_of
from hydragen_tree.sample.jsonl_file import intact_lines
from hydragen_tree.sample.manifest import Manifest, manifest_path
from hydragen_tree.sample.writer import SampleCounts, parse_line

_NOT_COMPARED = {"problem", "logprob", "sampled_logprob", "token_logprobs"}


def read_manifests(paths: Sequence[Path]) -> list[Manifest]:
    """The manifests of several files of samples, which have to be of one run.

    Raises:
        InputError: a file is not there, is named twice, has no manifest, or is of another run.
    """
    manifests = []
    places: dict[tuple[int, int], Path] = {}
    for path in paths:
        place = _place(path)
        if place in places:
            raise InputError(f"{path}: is the same file as {places[place]}; name each once")
        places[place] = path
        manifests.append(Manifest.read(manifest_path(path)))
    _require_one_run(paths, manifests)
    return manifests


def joined(manifests: Sequence[Manifest]) -> Manifest:
    """The manifest of the whole run, without end figures; its sessions are those of all parts."""
    sessions: list[dict[str, Any]] = []
    for manifest in manifests:
        of = {"shard": asdict(manifest.shard)} if manifest.shard else {}
        for session in ({**session, **of} for session in manifest.sessions):
            if session not in sessions:
                sessions.append(session)
    sessions.sort(key=lambda session: str(session.get("started")))
    return replace(_fullest(manifests), sessions=tuple(sessions), result=None, shard=None)


class Merging:
    """Reads the parts of one run, and tells what they hold together.

    The parts are locked until `close`, so that no run goes on writing them meanwhile.

    Args:
        paths: the parts, each with its manifest beside it.

    Attributes:
        manifest: of the whole run; with end figures where no sample is missing.
        doubled: lines that say again what another says; they are left out.
        torn: the parts whose last line was torn; it is left out.
        n_missing: samples of the run that no part holds.

    Raises:
        InputError: see `read_manifests`; a part is being written, was altered, or holds a sample
            that is another one elsewhere.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        manifests = read_manifests(paths)
        self.manifest = joined(manifests)
        self.doubled = 0
        self.torn: list[Path] = []
        self._left_out: list[set[int]] = [set() for _ in paths]  # where their lines begin
        self._ends: list[int] = []  # of the intact lines of each part
        self._number = {task_id: i for i, task_id in enumerate(self.manifest.tasks)}
        n_samples = self.manifest.n_samples
        self._part = np.full(n_samples, -1, np.int32)  # that holds the sample; -1: none yet
        self._offset = np.zeros(n_samples, np.int64)  # where its line begins
        self._locks = ExitStack()
        try:
            for path in paths:
                self._lock(path)
            tally = SampleCounts()
            for part, manifest in enumerate(manifests):
                self._read(part, manifest, tally)
        except BaseException:
            self.close()
            raise
        self.n_missing = n_samples - tally.samples
        if not self.n_missing:
            self.manifest = replace(self.manifest, result=tally.figures())

    def gaps(self) -> Iterator[str]:
        """The samples that are missing, in ranges: `'sum' 0 to 24`, `'sum' 31`."""
        n = self.manifest.n
        for task_id, number in self._number.items():
            held = self._part[number * n : (number + 1) * n] >= 0
            edges = np.flatnonzero(np.diff(held, prepend=True, append=True)).tolist()
            for start, stop in list(pairwise(edges))[::2]:
                span = str(start) if stop == start + 1 else f"{start} to {stop - 1}"
                yield f"{task_id!r} {span}"

    def lines(self) -> Iterator[bytes]:
        """Every sample once, as its line stands in its part, part by part."""
        for path, end, left_out in zip(self._paths, self._ends, self._left_out, strict=True):
            offset = 0
            with path.open("rb") as file:
                while offset < end:
                    raw = file.readline()
                    if offset not in left_out:
                        yield raw
                    offset += len(raw)

    def close(self) -> None:
        """Lets go of the parts."""
        self._locks.close()

    def __enter__(self) -> "Merging":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _lock(self, path: Path) -> None:
        try:
            file = self._locks.enter_context(path.open("rb"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: a run is still writing it") from None

    def _read(self, part: int, manifest: Manifest, tally: SampleCounts) -> None:
        """Learns which samples a part holds."""
        path, ranges = self._paths[part], manifest.ranges()
        offset = 0
        for number, raw, line in intact_lines(path, "sample", parse_line):
            task_id, index = line["task_id"], line["sample_index"]
            if index not in ranges.get(task_id, ()):
                raise InputError(
                    f"{path}:{number}: sample {index} of {task_id!r} is not one of those that its "
                    "manifest names; was the file altered?"
                )
            place = self._number[task_id] * self.manifest.n + index
            if self._part[place] < 0:
                self._part[place], self._offset[place] = part, offset
                tally.add(line)
            else:
                self._require_same(line, place, path)
                self._left_out[part].add(offset)
                self.doubled += 1
            offset += len(raw)
        self._ends.append(offset)
        if offset < path.stat().st_size:
            self.torn.append(path)

    def _require_same(self, line: dict[str, Any], place: int, path: Path) -> None:
        """Refuses a line that gives a sample otherwise than its first line does."""
        earlier = self._paths[self._part[place]]
        with earlier.open("rb") as file:
            file.seek(int(self._offset[place]))
            first = json.loads(file.readline())
        keys = (key for key in dict.fromkeys([*first, *line]) if key not in _NOT_COMPARED)
        dtype = self.manifest.model.get("dtype", "float32")
        if differing := [key for key in keys if first.get(key) != line.get(key)]:
            why = "" if dtype == "float32" else f" (in {dtype} samples depend on the batch)"
            raise InputError(
                f"sample {line['sample_index']} of {line['task_id']!r} is one in {earlier} and "
                f"another in {path}: they differ in {first_of(differing)}{why}"
            )


def _place(path: Path) -> tuple[int, int]:
    """Where a part lies, whatever it is called.

    Raises:
        InputError: it is not a file with a manifest beside it.
    """
    if path.suffix == ".gz":
        raise InputError(f"{path}: is compressed; unpack it first")
    if path == Path("-") or (path.exists() and not path.is_file()):
        raise InputError(f"{path}: is not a file; parts of a run have manifests beside them")
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if not manifest_path(path).is_file():
        raise InputError(
            f"{path}: no manifest {manifest_path(path)} says of which run its samples are"
        )
    return found.st_dev, found.st_ino


def _require_one_run(paths: Sequence[Path], manifests: Sequence[Manifest]) -> None:
    """Refuses parts of different runs, by what differs."""
    reference = _fullest(manifests)
    there = paths[manifests.index(reference)]
    for path, manifest in zip(paths, manifests, strict=True):
        differing = reference.differences(manifest)
        if manifest.n != reference.n:
            differing.insert(0, ("n", str(reference.n), str(manifest.n)))
        if differing:
            named = [f"{key} is {ours} in {there}, {its} in {path}" for key, ours, its in differing]
            raise InputError(f"{there} and {path} are of different runs: {first_of(named)}")


def _fullest(manifests: Sequence[Manifest]) -> Manifest:
    """The first that says what ends a sample, which old ones do not."""
    return next((manifest for manifest in manifests if manifest.ends), manifests[0])
