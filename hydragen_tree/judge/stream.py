"""A stream of programs through the workers, and their verdicts back.

    items -> feeder -> jobs -> workers (a box each) -> results -> the caller

Identical programs are judged once: the later ones wait for the first, or take its verdict from the
store. Everything in flight is bounded, so memory does not grow with the number of programs.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

from hydragen_tree.judge.languages import Language, find_language
from hydragen_tree.judge.verdicts import Verdict
from hydragen_tree.judge.worker_pool import Case, Job, WorkerPool
from hydragen_tree.problem.types import Problem

Tag = TypeVar("Tag")
Item = tuple[Problem, str, Tag]

_WAITING_PER_WORKER = 64  # programs accepted and not answered yet
_POLL_S = 0.2


class Stream(Generic[Tag]):
    """One run of the pipeline; arguments as for `Judge.judge_stream`."""

    def __init__(
        self,
        pool: WorkerPool,
        items: Iterable[Item[Tag]],
        language: str | Callable[[Tag], str],
        stop: threading.Event,
        wanted: Callable[[Tag], bool] | None,
    ) -> None:
        self._pool, self._items, self._language, self._stop = pool, items, language, stop
        self._wanted = wanted
        self._slots = threading.Semaphore(_WAITING_PER_WORKER * pool.workers)
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Tag]] = {}
        self._accepted = 0
        self._fed = False
        self._abandoned = threading.Event()
        self._failure: BaseException | None = None
        # Without a verdict: the item was dropped. None: nothing but a reason to look up.
        self._results: queue.SimpleQueue[tuple[Tag, Verdict | None] | None] = queue.SimpleQueue()

    def run(self) -> Iterator[tuple[Tag, Verdict]]:
        """Feed the workers from a thread of its own.

        Yields:
            (tag, verdict) in the order of completion.
        """
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
            self._pool.store.flush()
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
                case, language = self._pool.case(problem), self._language_of(tag)
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

    def _accept(self, case: Case, code: str, language: Language, tag: Tag) -> None:
        key = self._pool.key(case, code, language)
        with self._lock:
            if key in self._waiting:
                self._waiting[key].append(tag)
                return
            known = self._pool.store.get(key)
            if known is None:
                self._waiting[key] = [tag]
        if known is not None:
            self._results.put((tag, replace(known, cached=True)))
            return
        begin, done = partial(self._begin, key), partial(self._answer, key)
        self._pool.submit(Job(case, code, language, begin, done))

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
                self._pool.store.put(key, verdict)
            first, *others = self._waiting.pop(key)
        self._results.put((first, verdict))
        for tag in others:
            self._results.put((tag, replace(verdict, cached=True)))
