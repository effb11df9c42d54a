"""The samples file: one JSON line a sample.

Lines are only ever appended, each with one write, so that whatever stops a run leaves whole lines
and at most one torn one at the end, which `resume` cuts off. A manifest stands beside a file; a
stream (stdout, a pipe, a device) has none and cannot be resumed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from hydragen_tree.errors import InputError, OutputError, Setting
from hydragen_tree.sample.manifest import Manifest, manifest_path
from hydragen_tree.sample.sample import Sample


class Tally:
    """Counts what stands in the file, lines of earlier sessions included.

    Attributes:
        samples: lines.
        tokens: tokens drawn for them.
        finish_reasons: lines for each finish reason.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.tokens = 0
        self.finish_reasons: Counter[str] = Counter()
        self._programs: set[bytes] = set()

    @property
    def distinct_programs(self) -> int:
        """Different solutions, counted for each problem by itself."""
        return len(self._programs)

    def add(self, line: Mapping[str, Any]) -> None:
        """Counts one line."""
        program = f"{line['task_id']}\0{line['solution']}".encode(errors="surrogatepass")
        self.samples += 1
        self.tokens += line["n_tokens"]
        self.finish_reasons[line["finish_reason"]] += 1
        self._programs.add(hashlib.blake2b(program, digest_size=16).digest())

    def figures(self) -> dict[str, Any]:
        """The counts, for the manifest."""
        return {
            "samples": self.samples,
            "distinct_programs": self.distinct_programs,
            "tokens": self.tokens,
            "finish_reasons": dict(self.finish_reasons),
        }


class SampleWriter:
    """Owns the samples file of one run.

    `SampleWriter(...)` makes sure that the output can be written, before any model is loaded;
    `begin` takes the run's manifest; only with the first sample is what stood in the file given up.

    Args:
        path: the file, or None for stdout.
        resume: continue the file, where there is one.
        force: start anew, whatever stands in the file.

    Attributes:
        done: task id to the indices of the samples that stand in the file.
        tally: counts of what stands in the file.

    Raises:
        InputError: the file cannot be written, exists, or is being written by another run.
    """

    def __init__(self, path: Path | None, *, resume: bool = False, force: bool = False) -> None:
        self.path = path
        self.done: dict[str, set[int]] = {}
        self.tally = Tally()
        self._manifest: Manifest | None = None
        self._is_new = path is not None and not path.exists()
        self._fd = _open(path) if path is not None else _stdout()
        self._has_manifest = path is not None and stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._force = force
        self._started = False
        if self._has_manifest:
            try:
                self._claim(resume, force)
            except BaseException:
                self.close()
                raise
        elif resume:
            self.close()
            raise InputError(
                "only a file can be resumed; name one with ", Setting("path"), setting="resume"
            )

    def begin(self, manifest: Manifest) -> None:
        """Takes the run's description; after this, samples may be written.

        Reads what earlier sessions wrote, and cuts off a torn last line.

        Raises:
            InputError: the run to resume was another one, or its file was altered.
            OutputError: the manifest of a run that was complete cannot be written.
        """
        if self._has_manifest and not self._force and self._manifest_path.exists():
            try:
                manifest = Manifest.read(self._manifest_path).continued_by(manifest)
            except InputError as error:
                raise InputError(f"{self.path}: {error}") from error
            self._read_lines(manifest)
        self._manifest = manifest
        if not self.complete:
            self._manifest = manifest.with_session()
        elif manifest.result is None:  # killed between its last sample and the end
            self.finish({})

    @property
    def manifest(self) -> Manifest:
        """The run's manifest, its sessions included."""
        if self._manifest is None:
            raise RuntimeError("begin() comes first")
        return self._manifest

    @property
    def complete(self) -> bool:
        """Every sample of the run stands in the file."""
        return self.tally.samples == self.manifest.n * len(self.manifest.tasks)

    def write(self, sample: Sample) -> None:
        """Appends one sample; it stands in the file when this returns.

        Raises:
            BrokenPipeError: nobody reads the stream any more.
            OutputError: the disk is full, or the file is lost; every earlier line is intact.
        """
        self._start()
        line = _line(sample, self.manifest.tasks[sample.task_id].path)
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except BrokenPipeError:
            raise
        except OSError as error:
            self._cut_off(written)
            where = "stdout" if self.path is None else self.path
            before = self.tally.samples
            safe = (
                f"the {before} samples written before are intact" if before else "nothing is lost"
            )
            remedy = ("; make room and repeat the command with ", Setting("resume"))
            rest = remedy if self._has_manifest else ()
            raise OutputError(f"{where}: {error.strerror}; {safe}", *rest) from error
        self.done.setdefault(sample.task_id, set()).add(sample.sample_index)
        self.tally.add(line)

    def finish(self, figures: Mapping[str, Any]) -> None:
        """Completes the manifest.

        Args:
            figures: figures of this session, for the record.

        Raises:
            OutputError: the manifest cannot be written; the samples are all there.
        """
        self._start()
        self._manifest = self.manifest.finished(self.tally.figures(), figures)
        if self._has_manifest:
            os.fsync(self._fd)
            self._manifest.write(self._manifest_path)

    def close(self) -> None:
        """Lets go of the file; one that this run created and wrote nothing to is removed again."""
        if self.path is None or self._fd < 0:
            return
        if self._is_new and self._has_manifest and not self._started:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> "SampleWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        """Makes the file this run's, now that there is something to write."""
        if self._has_manifest and not self._started:
            if self._force:
                os.ftruncate(self._fd, 0)
            self.manifest.write(self._manifest_path)
        self._started = True

    @property
    def _manifest_path(self) -> Path:
        assert self.path is not None
        return manifest_path(self.path)

    def _claim(self, resume: bool, force: bool) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._is_new = False  # the other run's, so not ours to remove
            raise InputError(f"{self.path}: another run is writing it") from error
        if not os.access(self._manifest_path.parent, os.W_OK):
            raise InputError(f"{self._manifest_path}: cannot be written (", Setting("path"), ")")
        has_lines = os.fstat(self._fd).st_size > 0
        if force or not (has_lines or self._manifest_path.exists()):
            return
        if not resume:
            raise InputError(
                f"{self.path}: exists; ",
                Setting("resume"),
                " continues it, ",
                Setting("force"),
                " starts it anew (",
                Setting("path"),
                ")",
            )
        if not self._manifest_path.exists():
            raise InputError(
                f"{self.path}: cannot resume without its manifest {self._manifest_path}; ",
                Setting("force"),
                " starts anew",
            )

    def _read_lines(self, manifest: Manifest) -> None:
        assert self.path is not None
        intact, torn = 0, False
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if torn:
                    raise InputError(
                        f"{self.path}:{number - 1}: not a sample; the file was altered"
                    )
                line = _parse(raw)
                if line is None:
                    torn = True  # unless it turns out not to be the last
                    continue
                self._count(line, manifest, number)
                intact += len(raw)
        if torn:
            os.ftruncate(self._fd, intact)

    def _count(self, line: Mapping[str, Any], manifest: Manifest, number: int) -> None:
        task_id, index = line["task_id"], line["sample_index"]
        seen = self.done.setdefault(task_id, set())
        if task_id not in manifest.tasks or not 0 <= index < manifest.n or index in seen:
            raise InputError(
                f"{self.path}:{number}: sample {index} of {task_id!r} is doubled or not of this "
                "run; was the file altered?"
            )
        seen.add(index)
        self.tally.add(line)

    def _cut_off(self, n_bytes: int) -> None:
        """Takes back the beginning of a line whose rest could not be written, where that works."""
        with contextlib.suppress(OSError):
            end = os.lseek(self._fd, 0, os.SEEK_CUR) - n_bytes
            os.ftruncate(self._fd, end)
            os.lseek(self._fd, end, os.SEEK_SET)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror} (", Setting("path"), ")"
        ) from error


def _stdout() -> int:
    if sys.stdout is None:
        raise InputError("stdout: closed; name a file with ", Setting("path"))
    return sys.stdout.fileno()


def _line(sample: Sample, problem: str | None) -> dict[str, Any]:
    line: dict[str, Any] = {
        "task_id": sample.task_id,
        "sample_index": sample.sample_index,
        "prompt_variant": sample.prompt_variant,
        "completion": sample.completion,
        "solution": sample.solution,
        "finish_reason": sample.finish_reason,
        "n_tokens": sample.n_tokens,
        "logprob": sample.logprob,
        "sampled_logprob": sample.sampled_logprob,
        "seed": sample.seed,
    }
    if sample.token_logprobs is not None:
        line["token_logprobs"] = sample.token_logprobs
    if problem is not None:
        line["problem"] = problem
    return line


def _parse(raw: bytes) -> dict[str, Any] | None:
    """A line of ours, or None where it is torn."""
    if not raw.endswith(b"\n"):
        return None
    try:
        line: dict[str, Any] = json.loads(raw)
        _ = line["task_id"], line["sample_index"], line["solution"], line["n_tokens"]
    except (ValueError, KeyError, TypeError):
        return None
    return line
