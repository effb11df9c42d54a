"""The manifest beside a samples file: everything needed to repeat the run, or to go on with it.

    {"format", "n", "model", "settings", "tasks", "ends", "repeats", "sessions", "result"}

`model`, `settings` and `tasks` decide the samples: a run is resumed only where they are unchanged.
`n` may grow. Where verdicts decide how many samples are drawn, `stopping` has the rule, and `n` is
the most of a task. `repeats` says in words which samples another run would draw again. The file of
a shard has the key `shard`, too: {"number", "of", "first", "last"}; its `n` and `tasks` are the
whole run's, and stay. Versions of packages are kept for each session:
they may move samples by floating-point ties, but a run that outlives an upgrade is still the same
run.
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hydragen_tree.errors import InputError, OutputError
from hydragen_tree.files import write_text
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.shard import Shard, sample_ranges
from hydragen_tree.settings import SamplingSettings

FORMAT = "hydragen-samples/1"
_PACKAGES = ("hydragen-tree", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class Task:
    """What one problem, or one plain prompt, was sampled from.

    Args:
        prompts: sha256 of each variant's token ids.
        sha256: the problem's content hash; None for a plain prompt.
        path: the problem file, as the user named it; None for a plain prompt.
        prompt_tokens: how many each variant has; empty in manifests of before it was kept.
    """

    prompts: tuple[str, ...]
    sha256: str | None = None
    path: str | None = None
    prompt_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast samples were drawn, over the sessions that came to their end.

    Args:
        samples: drawn in them.
        tokens: drawn for those.
        elapsed_s: seconds, from when the weights were there.
    """

    samples: int
    tokens: int
    elapsed_s: float

    @property
    def tokens_a_second(self) -> float:
        """Tokens drawn a second."""
        return self.tokens / self.elapsed_s

    @property
    def samples_a_second(self) -> float:
        """Samples finished a second."""
        return self.samples / self.elapsed_s


@dataclass(frozen=True, slots=True)
class Manifest:
    """A run's description.

    Args:
        n: samples a task.
        model: the model's fingerprint.
        settings: the sampling settings, the seed among them.
        tasks: task id to what it was sampled from.
        ends: what ends a sample; empty in manifests of before it was kept.
        sessions: one entry for each time the run was started or resumed.
        result: end figures; None until every sample is there.
        shard: which samples of the run are the file's; None: all.
        stopping: by which rule on its verdicts a task ends before n; None: by none.
    """

    n: int
    model: Mapping[str, str]
    settings: Mapping[str, Any]
    tasks: Mapping[str, Task]
    ends: Mapping[str, Any] = field(default_factory=dict)
    sessions: tuple[Mapping[str, Any], ...] = field(default=())
    result: Mapping[str, Any] | None = None
    shard: Shard | None = None
    stopping: Mapping[str, Any] | None = None

    @classmethod
    def describe(
        cls,
        prompts: Sequence[Prompt],
        *,
        n: int,
        settings: SamplingSettings,
        model: Mapping[str, str],
        problems: Mapping[str, tuple[str | None, str]],
        ends: Mapping[str, Any] | None = None,
        shard: Shard | None = None,
        stopping: Mapping[str, Any] | None = None,
    ) -> "Manifest":
        """Describes a run that is about to start.

        Args:
            prompts: all prompts of the run.
            n: samples a task.
            settings: how they are drawn.
            model: the sampler's fingerprint.
            problems: task id to (path, content hash), for the tasks that came from a problem file.
            ends: what ends a sample.
            shard: the part of it to draw; None: all.
            stopping: the rule by which tasks end before n; None: none.
        """
        variants: dict[str, list[Prompt]] = {}
        for prompt in prompts:
            variants.setdefault(prompt.task_id, []).append(prompt)
        tasks = {}
        for task_id, of_task in variants.items():
            path, sha256 = problems.get(task_id, (None, None))
            digests = tuple(prompt.sha256 for prompt in of_task)
            lengths = tuple(len(prompt.token_ids) for prompt in of_task)
            tasks[task_id] = Task(digests, sha256, path, lengths)
        part = shard.within(n) if shard else None
        return cls(
            n, dict(model), asdict(settings), tasks, ends or {}, shard=part, stopping=stopping
        )

    @property
    def model_name(self) -> str:
        """As it was asked for; `unknown` where other hands wrote the manifest and name none."""
        return str(self.model.get("name", "unknown"))

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Reads a manifest.

        Raises:
            InputError: it cannot be read, or is not one of ours.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format"] != FORMAT:
                raise InputError(f"{path}: format {record['format']!r}, expected {FORMAT!r}")
            tasks = {
                task_id: Task(
                    tuple(task["prompts"]),
                    task["sha256"],
                    task["path"],
                    tuple(task.get("prompt_tokens", ())),
                )
                for task_id, task in record["tasks"].items()
            }
            keys = ("n", "model", "settings")
            rest = {
                "ends": record.get("ends", {}),
                "sessions": tuple(record["sessions"]),
                "result": record["result"],
                "shard": _shard(record.get("shard")),
                "stopping": record.get("stopping"),
            }
            return cls(**{key: record[key] for key in keys}, tasks=tasks, **rest)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a readable manifest ({error!r})") from error

    def write(self, path: Path) -> None:
        """Writes the manifest in one piece: a reader sees the old one or the new one.

        Raises:
            OutputError: it cannot be written; what was there before still is.
        """
        try:
            write_text(path, json.dumps({"format": FORMAT, **self._record()}, indent=1) + "\n")
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from error

    def ranges(self) -> dict[str, range]:
        """The sample indices that belong into the file, by task id."""
        return sample_ranges(self.tasks, self.n, self.shard)

    @property
    def n_samples(self) -> int:
        """How many samples a complete file has."""
        return sum(map(len, self.ranges().values()))

    def n_missing(self, samples: int) -> int:
        """How many samples are still to come, at the most.

        Args:
            samples: how many there are.
        """
        has_ended = self.stopping is not None and self.result is not None
        return 0 if has_ended else self.n_samples - samples

    def differences(self, other: "Manifest") -> list[tuple[str, str, str]]:
        """What decides the samples and is not equal: key, its value here, its value there."""
        before, after = dict(_leaves(self._identity())), dict(_leaves(other._identity()))
        if self.ends and other.ends:  # a manifest of before they were kept has none
            before |= dict(_leaves(_plain({"ends": self.ends})))
            after |= dict(_leaves(_plain({"ends": other.ends})))
        return [
            (key, _short(before.get(key)), _short(after.get(key)))
            for key in dict.fromkeys([*before, *after])
            if before.get(key) != after.get(key)
        ]

    def changes(self, other: "Manifest") -> list[str]:
        """Says what would have to be equal for `other` to continue this run and is not."""
        return [f"{key} was {was}, is {now}" for key, was, now in self.differences(other)]

    def continued_by(self, new: "Manifest") -> "Manifest":
        """The manifest of this run, resumed with `new`'s n.

        Raises:
            InputError: something that decides the samples changed, or n shrank, or grew in a shard.
        """
        changes = self.changes(new)
        if self.shard != new.shard:
            was, now = (str(m.shard or "all of them") for m in (self, new))
            changes.append(f"the shard was {was}, is {now}")
        elif self.stopping != new.stopping:
            was, now = (_short(m.stopping) for m in (self, new))
            changes.append(f"what ends a problem was {was}, is {now}")
        elif self.shard is not None and new.n != self.n:
            changes.append(f"n was {self.n}, is {new.n} (of a shard it stays)")
        elif new.n < self.n:
            changes.append(f"n was {self.n}, is {new.n} (it may grow, not shrink)")
        if changes:
            raise InputError("cannot resume, as the run has changed: " + "; ".join(changes))
        return replace(self, n=new.n, result=self.result if new.n == self.n else None)

    def with_session(self, options: Mapping[str, Any] | None = None) -> "Manifest":
        """The manifest with one more session, started now with the versions installed now.

        Args:
            options: what whoever started it was given, and where that came from.
        """
        session = {"started": _now(), "versions": installed_versions()}
        session |= {"options": dict(options)} if options else {}
        return replace(self, sessions=(*self.sessions, session))

    def finished(self, result: Mapping[str, Any] | None, figures: Mapping[str, Any]) -> "Manifest":
        """The manifest with its end figures.

        Args:
            result: figures of all samples in the file; None: some are still to be drawn.
            figures: figures of the last session.
        """
        *earlier, last = self.sessions
        last = {**last, "ended": _now(), "figures": dict(figures)}
        ended = None if result is None else dict(result)
        return replace(self, sessions=(*earlier, last), result=ended)

    def _record(self) -> dict[str, Any]:
        """The manifest as plain data; what a run does not have, it does not mention."""
        record = asdict(self) | {"repeats": self.repeats}
        absent = {key for key in ("shard", "stopping", "repeats") if record[key] is None}
        return {key: value for key, value in record.items() if key not in absent}

    @property
    def repeats(self) -> str | None:
        """What a run with the same settings repeats, whatever its n, batch, memory or shards are.

        None where other hands wrote the manifest and do not say.
        """
        if "dtype" not in self.model:
            return None
        where = f"on another device of this kind ({self.model.get('device', 'unknown')})"
        if invariant := self.model.get("batch_invariant"):
            held = "" if invariant == "true" else f", held {invariant}"
            return f"every sample and log-probability, bit for bit, {where}{held}"
        if self.model["dtype"] == "float32":
            return f"every sample, up to rounding of the model's sums, {where}"
        return f"random numbers; samples may differ, as sums depend on the batch, {where}"

    @property
    def speed(self) -> Speed | None:
        """How fast it was; None where no session came to its end."""
        figures = [session["figures"] for session in self.sessions if session.get("figures")]
        timed = [each for each in figures if each.get("elapsed_s")]
        if not timed:
            return None
        samples, tokens, elapsed_s = (
            sum(each[key] for each in timed)
            for key in ("samples_done", "tokens_sampled", "elapsed_s")
        )
        return Speed(samples, tokens, elapsed_s)

    def _identity(self) -> dict[str, Any]:
        tasks = {
            task_id: {"sha256": task.sha256, "prompts": list(task.prompts)}
            for task_id, task in self.tasks.items()
        }
        settings = {"stop_tokens": (), **self.settings}  # as where they were not known yet
        return _plain({"model": self.model, "settings": settings, "tasks": tasks})


def manifest_path(samples: Path) -> Path:
    """Where the manifest of a samples file lies."""
    return samples.with_name(samples.name + ".manifest.json")


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what is drawn."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def _shard(record: dict[str, Any] | None) -> Shard | None:
    try:
        return None if record is None else Shard(**record)
    except InputError as error:
        raise ValueError(str(error)) from error


def _version(package: str) -> str:
    """A package's version; a checkout on the path, or a stripped installation, states none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As it is read back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]}..."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
