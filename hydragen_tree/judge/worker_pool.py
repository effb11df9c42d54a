"""The workers of a judge: a thread and a sandbox each, which take programs as they are given."""

import hashlib
import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.judge.checker_programs import (
    CheckerError,
    CheckerProgram,
    checker_files,
    prepare_checker,
    refuse_unusable_checker,
)
from hydragen_tree.judge.languages import Language, fingerprint
from hydragen_tree.judge.limits import LimitsByTest
from hydragen_tree.judge.normal_form import normal_form
from hydragen_tree.judge.sandbox.interpreter import Interpreter
from hydragen_tree.judge.sandbox.isolation import Isolation
from hydragen_tree.judge.store import Store
from hydragen_tree.judge.verdicts import Verdict
from hydragen_tree.judge.worker import RunLock, Worker
from hydragen_tree.problem.types import Problem

_RULES = 5  # of judging; raised when verdicts may change for equal programs and tests
_JUDGED_BY = ("tests", "limits", "checker", "entry_point")


class Case:
    """A problem made ready to judge: its key, the limits of its tests and its checker."""

    def __init__(self, problem: Problem) -> None:
        refuse_unusable_checker(problem)
        if not problem.tests:
            raise InputError(f"{problem.source or problem.id}: no tests to judge with")
        self.problem = problem
        self.limits = LimitsByTest(problem)
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
        """Give back what the checker holds."""
        if self._checker is not None:
            self._checker.close()


@dataclass(frozen=True, slots=True)
class Job:
    """A program to judge, and who wants to know.

    Attributes:
        case: the problem.
        code: the program's source.
        language: what it is written in.
        begin: asked by a worker when the job's turn has come: False drops it.
        done: told the verdict, by the worker.
    """

    case: Case
    code: str
    language: Language
    begin: Callable[[], bool]
    done: Callable[[Verdict], None]


class WorkerPool:
    """Runs jobs, as many at a time as there are workers.

    Args:
        workers: programs judged at a time.
        isolation: of the sandboxes.
        interpreter: the Python that runs the programs.
        store: what was judged before.

    Attributes:
        workers: as given.
        store: as given; closed with the pool.
    """

    def __init__(
        self, workers: int, isolation: Isolation, interpreter: Interpreter, store: Store
    ) -> None:
        self.workers = workers
        self.store = store
        self._isolation = isolation
        self._interpreter = interpreter
        self._run_lock = RunLock()
        self._closing = threading.Event()
        self._cases: dict[int, Case] = {}
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def case(self, problem: Problem) -> Case:
        """The problem made ready, once.

        Raises:
            InputError: it has no tests, or its checker cannot be run here.
        """
        with self._lock:
            case = self._cases.get(id(problem))
            if case is None:
                case = self._cases[id(problem)] = Case(problem)
            return case

    def key(self, case: Case, code: str, language: Language) -> str:
        """What the verdict of a program is kept by: equal for all that must judge alike."""
        by = fingerprint(language) if language.compiler else self._interpreter.version
        level = self._isolation.level
        return _digest(str(_RULES), level, by, case.key, normal_form(code, language.name))

    def submit(self, job: Job) -> None:
        """Give a job to the workers; there are as many as there was ever work for at a time."""
        with self._lock:
            if len(self._threads) < self.workers:
                self._threads.append(threading.Thread(target=self._work, daemon=True))
                self._threads[-1].start()
        self._jobs.put(job)

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
        self.store.close()

    def _work(self) -> None:
        # One thread for one box: a sandbox dies with the thread that started it.
        worker = Worker(self._isolation.container, self._run_lock, self._closing)
        try:
            while (job := self._jobs.get()) is not None:
                if job.begin():
                    job.done(self._judge(worker, job))
        finally:
            worker.close()

    def _judge(self, worker: Worker, job: Job) -> Verdict:
        case = job.case
        try:
            checker = case.checker(worker, self.store)
            return worker.judge(case.problem, case.limits, checker, job.code, job.language)
        except Exception as error:  # whatever it is, it is not the program's fault
            return Verdict("IE", message=f"{type(error).__name__}: {error}"[:400])


def _digest(*parts: Any) -> str:
    text = json.dumps(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
