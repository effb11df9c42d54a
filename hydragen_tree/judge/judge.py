"""The judge: programs in, verdicts out, as they come."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hydragen_tree.errors import InputError
from hydragen_tree.judge.languages import find_language
from hydragen_tree.judge.sandbox.interpreter import Interpreter, find_interpreter
from hydragen_tree.judge.sandbox.isolation import Isolation, find_isolation
from hydragen_tree.judge.store import Store, default_directory
from hydragen_tree.judge.stream import Item, Stream, Tag
from hydragen_tree.judge.verdicts import Verdict
from hydragen_tree.judge.worker_pool import WorkerPool
from hydragen_tree.problem.types import Problem


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
        interpreter = find_interpreter(python)
        self.isolation: Isolation = find_isolation(sandbox, interpreter)
        store = Store((cache_dir or default_directory()) if cache else None)
        self._pool = self._make_pool(interpreter, store)

    def _make_pool(self, interpreter: Interpreter, store: Store) -> WorkerPool:
        """Who runs the programs."""
        return WorkerPool(self.workers, self.isolation, interpreter, store)

    def require_judgeable(self, problem: Problem) -> None:
        """Make sure that a problem can be judged, before anything is.

        Raises:
            InputError: it has no tests, or its checker cannot be run here.
        """
        self._pool.case(problem)

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
        return Stream(self._pool, items, language, stop, wanted).run()

    def close(self) -> None:
        """End the sandboxes, after the tests that run now, and keep what was learnt."""
        self._pool.close()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
