"""The judge behind the sampler: a thread that judges a samples file while it is written.

The file is all that lies between the two. So the sampler never waits for the judge, samples that
are not judged yet take no memory, and a run that was stopped goes on by the same way: the judge
reads the file from its beginning and passes over what has a verdict.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

from hydragen_tree.judge.grading import Grading

_CHUNK = 1 << 20
_POLL_S = 0.05


class JudgeThread:
    """Judges the samples of a file as they come. Use it in a `with` block.

    Args:
        grading: judges them.
        samples: the file; it has to be there when the thread starts.
        language: of programs whose lines name none.
    """

    def __init__(self, grading: Grading, samples: Path, language: str) -> None:
        self._grading, self._samples, self._language = grading, samples, language
        self._written, self._stop = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins, unless it has begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Raises what made the judge fail, if it has."""
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Waits until all of the file is judged; nothing may be added to it any more."""
        self.start()
        self._written.set()
        assert self._thread is not None
        self._thread.join()
        self.check()

    def __enter__(self) -> "JudgeThread":
        return self

    def __exit__(self, *error: object) -> None:
        """Ends after the programs that run now."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        lines = follow(self._samples, self._written, self._stop)
        try:
            self._grading.run({str(self._samples): lines}, self._language, self._stop)
        except BaseException as error:  # whoever draws the samples raises it
            self._failure = error


def follow(path: Path, written: threading.Event, stop: threading.Event) -> Iterator[bytes]:
    """The lines of a file as they are appended.

    Args:
        path: the file.
        written: set when nothing is added any more.
        stop: set to end at once.

    Yields:
        Whole lines; one without an end is not whole yet.
    """
    rest = b""
    with path.open("rb", buffering=0) as file:
        while not stop.is_set():
            was_written = written.is_set()  # asked before reading: nothing can come after it
            chunk = file.read(_CHUNK)
            if chunk:
                *ends, rest = (rest + chunk).split(b"\n")
                yield from (end + b"\n" for end in ends)
            elif was_written:
                return
            else:
                written.wait(_POLL_S)
