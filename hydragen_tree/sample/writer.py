"""The samples file: one JSON line a sample.

A manifest stands beside a file; a stream (stdout, a pipe, a device) has none and cannot be resumed.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydragen_tree.errors import InputError, Setting
from hydragen_tree.sample.jsonl_file import JsonlFile
from hydragen_tree.sample.manifest import Manifest, Task, manifest_path
from hydragen_tree.sample.sample import Sample


class SampleCounts:
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
        self.tally = SampleCounts()
        self._manifest: Manifest | None = None
        self._tasks: dict[str, Task] = {}  # the manifest's
        self._force = force
        self._started = False
        beside = None if path is None else manifest_path(path)
        self._file = JsonlFile(path, "sample", resume=resume, force=force, beside=beside)
        self._has_manifest = self._file.is_regular
        try:
            self._check_manifest(resume and not force)
        except BaseException:
            self.close()
            raise

    def _check_manifest(self, resume: bool) -> None:
        if not self._has_manifest:
            return
        if not os.access(self._manifest_path.parent, os.W_OK):
            raise InputError(f"{self._manifest_path}: cannot be written (", Setting("path"), ")")
        if resume and not self._file.is_empty and not self._manifest_path.exists():
            raise InputError(
                f"{self.path}: cannot resume without its manifest {self._manifest_path}; ",
                Setting("force"),
                " starts anew",
            )

    def begin(self, manifest: Manifest, options: Mapping[str, Any] | None = None) -> None:
        """Takes the run's description; after this, samples may be written.

        Reads what earlier sessions wrote, and cuts off a torn last line.

        Args:
            manifest: of the run.
            options: see `Manifest.with_session`.

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
        self._tasks = dict(manifest.tasks)
        self._manifest = manifest = replace(manifest, tasks=self._tasks)
        if not self.complete:
            self._manifest = manifest.with_session(options)
        elif manifest.result is None:  # killed between its last sample and the end
            self.finish({})

    def extend(self, tasks: Mapping[str, Task]) -> None:
        """Takes further tasks of the run, of which nothing has been written before."""
        self._tasks.update(tasks)

    @property
    def manifest(self) -> Manifest:
        """The run's manifest, its sessions included."""
        if self._manifest is None:
            raise RuntimeError("begin() comes first")
        return self._manifest

    @property
    def complete(self) -> bool:
        """Every sample of the run stands in the file."""
        return self.tally.samples == self.manifest.n_samples

    def write(self, sample: Sample) -> None:
        """Appends one sample; it stands in the file when this returns.

        Raises:
            BrokenPipeError: nobody reads the stream any more.
            OutputError: the disk is full, or the file is lost; every earlier line is intact.
        """
        self._start()
        line = _line(sample, self.manifest.tasks[sample.task_id].path)
        self._file.append(line)
        self.done.setdefault(sample.task_id, set()).add(sample.sample_index)
        self.tally.add(line)

    def finish(self, figures: Mapping[str, Any], *, complete: bool = True) -> None:
        """Completes the manifest.

        Args:
            figures: figures of this session, for the record.
            complete: no more samples are to come, in any session.

        Raises:
            OutputError: the manifest cannot be written; the samples are all there.
        """
        self._start()
        result = self.tally.figures() if complete else None
        self._manifest = self.manifest.finished(result, figures)
        if self._has_manifest:
            self._file.sync()
            self._manifest.write(self._manifest_path)

    def close(self) -> None:
        """Lets go of the file; one that this run created and wrote nothing to is removed again."""
        self._file.close(keep=self._started)

    def __enter__(self) -> "SampleWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        """Makes the file this run's, now that there is something to write."""
        if self._has_manifest and not self._started:
            if self._force:
                self._file.clear()
            self.manifest.write(self._manifest_path)
        self._started = True

    @property
    def _manifest_path(self) -> Path:
        assert self.path is not None
        return manifest_path(self.path)

    def _read_lines(self, manifest: Manifest) -> None:
        ranges = manifest.ranges()
        for number, line in self._file.read(parse_line):
            self._count(line, ranges, number)
        self._file.repair()

    def _count(self, line: Mapping[str, Any], ranges: Mapping[str, range], number: int) -> None:
        task_id, index = line["task_id"], line["sample_index"]
        seen = self.done.setdefault(task_id, set())
        if index not in ranges.get(task_id, ()) or index in seen:
            raise InputError(
                f"{self.path}:{number}: sample {index} of {task_id!r} is doubled or not of this "
                "run; was the file altered?"
            )
        seen.add(index)
        self.tally.add(line)


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
    if sample.reasoning is not None:
        line["reasoning"] = sample.reasoning
    if sample.token_logprobs is not None:
        line |= {"token_ids": sample.token_ids, "token_logprobs": sample.token_logprobs}
    if problem is not None:
        line["problem"] = problem
    return line


def parse_line(raw: bytes) -> dict[str, Any] | None:
    """A line of a samples file as data, or None where it is something else."""
    try:
        line: dict[str, Any] = json.loads(raw)
        task_id, index = line["task_id"], line["sample_index"]
        _ = line["solution"], line["n_tokens"], line["finish_reason"]
    except (ValueError, KeyError, TypeError):
        return None
    return line if isinstance(task_id, str) and type(index) is int else None
