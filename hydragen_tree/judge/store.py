"""What the judge remembers: verdicts by program and tests, and compiled programs.

One SQLite file, and a folder of executables, in the user's cache directory. Several judges may use
them at once. Losing them costs time and nothing else, so nothing here is ever an error to a user.
"""

import contextlib
import json
import os
import sqlite3
import tempfile
import threading
from pathlib import Path
from typing import Any

from hydragen_tree.judge.verdicts import Verdict

_MOST_VERDICTS = 500_000
_COMMIT_EVERY = 200
_WAIT_S = 10.0


def default_directory() -> Path:
    """Where the cache lies unless somebody says otherwise."""
    from platformdirs import user_cache_path

    return user_cache_path("hydragen") / "judge"


class Store:
    """The judge's memory.

    Args:
        directory: where it lies; None keeps it for this process only.
    """

    def __init__(self, directory: Path | None) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()
        self._uncommitted = 0
        if directory is None:
            self._open_temporary()
            return
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._open(directory)
        except (OSError, sqlite3.Error):
            self._open_temporary()

    @property
    def lasting(self) -> bool:
        """Whether it outlives this process."""
        return self._temporary is None

    def get(self, key: str) -> Verdict | None:
        """The verdict kept under a key."""
        with self._lock, contextlib.suppress(sqlite3.Error, ValueError, TypeError):
            row = self._database.execute(
                "SELECT verdict FROM verdicts WHERE key = ?", (bytes.fromhex(key),)
            ).fetchone()
            if row is not None:
                return Verdict(**json.loads(row[0]))
        return None

    def put(self, key: str, verdict: Verdict) -> None:
        """Keep a verdict."""
        fields: dict[str, Any] = verdict.to_json()
        fields["status"] = fields.pop("verdict")
        row = (bytes.fromhex(key), json.dumps(fields))
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._database.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", row)
            self._uncommitted += 1
            if self._uncommitted >= _COMMIT_EVERY:
                self._commit()

    def executable(self, key: str) -> bytes | None:
        """The compiled program kept under a key."""
        try:
            return (self._programs / key).read_bytes()
        except OSError:
            return None

    def put_executable(self, key: str, content: bytes) -> None:
        """Keep a compiled program."""
        with contextlib.suppress(OSError):
            self._programs.mkdir(exist_ok=True)
            part = self._programs / f"{key}.{os.getpid()}.part"
            part.write_bytes(content)
            part.replace(self._programs / key)

    def flush(self) -> None:
        """Make what was put so far visible to other processes."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._commit()

    def close(self) -> None:
        """Flush, and close the database; a temporary one is deleted."""
        self.flush()
        with self._lock:
            self._database.close()
            if self._temporary is not None:
                self._temporary.cleanup()

    def _commit(self) -> None:
        self._database.commit()
        self._uncommitted = 0

    def _open_temporary(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="hydragen-judge-")
        self._open(Path(self._temporary.name))

    def _open(self, directory: Path) -> None:
        self._programs = directory / "programs"
        self._database = sqlite3.connect(
            directory / "verdicts.sqlite", timeout=_WAIT_S, check_same_thread=False
        )
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS verdicts (key BLOB PRIMARY KEY, verdict TEXT)"
            )
            self._database.execute(
                "DELETE FROM verdicts WHERE rowid <= (SELECT max(rowid) FROM verdicts) - ?",
                (_MOST_VERDICTS,),
            )
            self._database.commit()
        except sqlite3.Error:
            self._database.close()
            raise
