"""Workers that are forked from a process that has imported torch, which takes seconds each."""

import os
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, cast

import pytest

from hydragen_tree.spread import child, processes
from tests.forked import Forked


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of crews are forked; how they start by themselves is tested without this."""
    monkeypatch.setattr(processes, "_started", _forked)


def _forked(environment: Mapping[str, str] | None) -> processes._Process:
    ours, theirs = Pipe()
    with theirs:
        return processes._Process(cast(Any, Forked(_serve, theirs, environment)), ours)


def _serve(connection: Connection, environment: Mapping[str, str] | None) -> None:
    os.setsid()
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    child.main(connection.fileno())
