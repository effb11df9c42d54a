"""The judge: programs in, verdicts out, as they come.

    items -> feeder -> jobs -> workers (a box each) -> results -> the caller

Identical programs are judged once: the later ones wait for the first, or take its verdict from the
store. Everything in flight is bounded, so memory does not grow with the number of programs.
"""

import hashlib
import json
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from hydragen_tree.errors import InputError
from hydragen_tree.judge.checker_programs import (
    CheckerError,
    CheckerProgram,
    checker_files,
    prepare_checker,
    refuse_unusable_checker,
)
from hydragen_tree.judge.languages import Language, find_language, fingerprint
from hydragen_tree.judge.normal_form import normal_form
from hydragen_tree.judge.sandbox.interpreter import find_interpreter
from hydragen_tree.judge.sandbox.isolation import Isolation, find_isolation
from hydragen_tree.judge.store import Store, default_directory
from hydragen_tree.judge.verdicts import Verdict
from hydragen_tree.judge.worker import RunLock, Worker
from hydragen_tree.problem.types import Problem

Tag = TypeVar("Tag")
Item = tuple[Problem, str, Tag]

_RULES = 3  # of judging; raised when verdicts may change for equal programs and tests
_WAITING_PER_WORKER = 64  # programs accepted and not answered yet
_POLL_S = 0.2
_JUDGED_BY = ("tests", "limits", "checker", "entry_point")


class _Case:
    """A problem made ready to judge: its key and its checker."""

    def __init__(self, problem: Problem) -> None:
        refuse_unusable_checker(problem)
        if not problem.tests:
            raise InputError(f"{problem.source or problem.id}: no tests to judge with")
        self.problem = problem
        self.key = _digest(
            problem.model_dump_json(include=set(_JUDGED_BY)),
            *(name + hashlib.sha256(c).hexdigest() for name, c in checker_files(problem).items()),
        )
        self._lock = threading.Lock()
        self._checker: CheckerProgram | None = None
        self._checker_error: CheckerError | None = None
        self._ready = False

    def checker(self, worker: Worker, store: Store) -> CheckerProgram | None:
        """The problem's checker, made ready by whoever needs it first."""
        with self._lock:
            if not self._ready:
                try:
                    self._checker = prepare_checker(self.problem, worker.box, store)
                except CheckerError as error:
                    self._checker_error = error
                self._ready = True
        if self._checker_error is not None:
            raise self._checker_error
        return self._checker

    def close(self) -> None:
        if self._checker is not None:
            self._checker.close()


@dataclass(frozen=True, slots=True)
class _Job:
    """A program to judge, and who wants to know."""

    case: _Case
    code: str
    language: Language
    begin: Callable[[], bool]
    done: Callable[[Verdict], None]


class Judge:
    """Judges programs in a sandbox. Use it in a `with` block, or `close` it.

    Args:
        sandbox: the level of isolation; by default the strongest that holds here. `rlimits`, which
            protects nothing, is only taken when named.
        workers: programs judged at a time; by default as many as there are processors.
        cache_dir: where verdicts are kept; the user's cache directory by default.
        cache: keep verdicts beyond this process.
        python: the Python that runs the programs; by default ours, without its packages.

    Raises:
        InputError: a value is wrong, or the level asked for does not work here.
    """

    def __init__(
        self,
        sandbox: str = "auto",
        workers: int | None = None,
        cache_dir: Path | None = None,
        *,
        cache: bool = True,
        python: str | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise InputError("expected an integer >= 1", setting="workers", value=workers)
        self.workers = workers or len(os.sched_getaffinity(0))
        self._interpreter = find_interpreter(python)
        self.isolation: Isolation = find_isolation(sandbox, self._interpreter)
        self._store = Store((cache_dir or default_directory()) if cache else None)
        self._run_lock = RunLock()
        self._closing = threading.Event()
        self._cases: dict[int, _Case] = {}
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def require_judgeable(self, problem: Problem) -> None:
        """Make sure that a problem can be judged, before anything is.

        Raises:
            InputError: it has no tests, or its checker cannot be run here.
        """
        self._case(problem)

    def judge(self, problem: Problem, code: str, language: str = "python") -> Verdict:
        """Judge one program.

        Args:
            problem: with tests.
            code: the program's source.
            language: its name in the table of languages.

        Raises:
            InputError: the problem cannot be judged, or the language is not known.
        """
        [(_, verdict)] = self.judge_stream([(problem, code, None)], language)
        return verdict

    def judge_stream(
        self,
        items: Iterable[Item[Tag]],
        language: str | Callable[[Tag], str] = "python",
        *,
        stop: threading.Event | None = None,
        wanted: Callable[[Tag], bool] | None = None,
    ) -> Iterator[tuple[Tag, Verdict]]:
        """Judge programs as they come.

        Args:
            items: (problem, code, tag); read only a little ahead.
            language: of all of them, or what tells it from an item's tag.
            stop: when set, no further item is read or begun; the stream ends after those that run.
            wanted: asked once, by a worker, when an item's turn to run comes; False drops it.

        Yields:
            (tag, verdict) in the order of completion.

        Raises:
            InputError: as for `judge`, when the item's turn comes.
        """
        stop = stop or threading.Event()
        if isinstance(language, str):
            find_language(language)
        return _Stream(self, items, language, stop, wanted).run()

    def close(self) -> None:
        """End the sandboxes, after the tests that run now, and keep what was learnt."""
        self._closing.set()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        for case in self._cases.values():
            case.close()
        self._threads, self._cases = [], {}
        self._store.close()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _case(self, problem: Problem) -> _Case:
        with self._lock:
            case = self._cases.get(id(problem))
            if case is None:
                case = self._cases[id(problem)] = _Case(problem)
            return case

    def _key(self, case: _Case, code: str, language: Language) -> str:
        by = fingerprint(language) if language.compiler else self._interpreter.version
        level = self.isolation.level
        return _digest(str(_RULES), level, by, case.key, normal_form(code, language.name))

    def _submit(self, job: _Job) -> None:
        """Give a job to the workers; there are as many as there was ever work for at a time."""
        with self._lock:
            if len(self._threads) < self.workers:
                self._threads.append(threading.Thread(target=self._work, daemon=True))
                self._threads[-1].start()
        self._jobs.put(job)

    def _work(self) -> None:
        # One thread for one box: a sandbox dies with the thread that started it.
        worker = Worker(self.isolation.container, self._run_lock, self._closing)
        try:
            while (job := self._jobs.get()) is not None:
                if job.begin():
                    job.done(self._judge(worker, job))
        finally:
            worker.close()

    def _judge(self, worker: Worker, job: _Job) -> Verdict:
        case = job.case
        try:
            checker = case.checker(worker, self._store)
            return worker.judge(case.problem, checker, job.code, job.language)
        except Exception as error:  # whatever it is, it is not the program's fault
            return Verdict("IE", message=f"{type(error).__name__}: {error}"[:400])


class _Stream(Generic[Tag]):
    """One run of the pipeline."""

    def __init__(
        self,
        judge: Judge,
        items: Iterable[Item[Tag]],
        language: str | Callable[[Tag], str],
        stop: threading.Event,
        wanted: Callable[[Tag], bool] | None,
    ) -> None:
        self._judge, self._items, self._language, self._stop = judge, items, language, stop
        self._wanted = wanted
        self._slots = threading.Semaphore(_WAITING_PER_WORKER * judge.workers)
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Tag]] = {}
        self._accepted = 0
        self._fed = False
        self._abandoned = threading.Event()
        self._failure: BaseException | None = None
        # Without a verdict: the item was dropped. None: nothing but a reason to look up.
        self._results: queue.SimpleQueue[tuple[Tag, Verdict | None] | None] = queue.SimpleQueue()

    def run(self) -> Iterator[tuple[Tag, Verdict]]:
        threading.Thread(target=self._feed, daemon=True).start()
        answered = 0
        try:
            while not (self._ended() and answered == self._accepted):
                result = self._next()
                if result is None:
                    continue
                answered += 1
                self._slots.release()
                tag, verdict = result
                if verdict is not None:
                    yield tag, verdict
        finally:
            self._abandoned.set()
            self._stop.set()
            self._slots.release()
            self._judge._store.flush()
        if self._failure is not None:
            raise self._failure

    def _next(self) -> tuple[Tag, Verdict | None] | None:
        # Woken now and then: a `stop` that somebody sets brings no result of its own.
        try:
            return self._results.get(timeout=_POLL_S)
        except queue.Empty:
            return None

    def _ended(self) -> bool:
        with self._lock:
            return self._fed or self._stop.is_set()

    def _feed(self) -> None:
        try:
            for problem, code, tag in self._items:
                self._slots.acquire()
                case, language = self._judge._case(problem), self._language_of(tag)
                with self._lock:
                    if self._stop.is_set():
                        break
                    self._accepted += 1
                self._accept(case, code, language, tag)
        except BaseException as error:
            self._failure = error
        finally:
            with self._lock:
                self._fed = True
            self._results.put(None)

    def _language_of(self, tag: Tag) -> Language:
        name = self._language
        return find_language(name if isinstance(name, str) else name(tag))

    def _accept(self, case: _Case, code: str, language: Language, tag: Tag) -> None:
        key = self._judge._key(case, code, language)
        with self._lock:
            if key in self._waiting:
                self._waiting[key].append(tag)
                return
            known = self._judge._store.get(key)
            if known is None:
                self._waiting[key] = [tag]
        if known is not None:
            self._results.put((tag, replace(known, cached=True)))
            return
        begin, done = partial(self._begin, key), partial(self._answer, key)
        self._judge._submit(_Job(case, code, language, begin, done))

    def _begin(self, key: str) -> bool:
        """Whether a program is to be run now that its turn has come."""
        if self._abandoned.is_set():
            return False
        stopped = self._stop.is_set()
        if self._wanted is None and not stopped:
            return True
        wanted: list[Tag] = []
        with self._lock:
            for tag in self._waiting.pop(key):
                if not stopped and (self._wanted is None or self._wanted(tag)):
                    wanted.append(tag)
                else:
                    self._results.put((tag, None))
            if wanted:
                self._waiting[key] = wanted
        return bool(wanted)

    def _answer(self, key: str, verdict: Verdict) -> None:
        with self._lock:
            # Stored first: nobody may find the program neither waited for nor known.
            if verdict.status != "IE":
                self._judge._store.put(key, verdict)
            first, *others = self._waiting.pop(key)
        self._results.put((first, verdict))
        for tag in others:
            self._results.put((tag, replace(verdict, cached=True)))


def _digest(*parts: Any) -> str:
    text = json.dumps(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
