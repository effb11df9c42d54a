"""Workers that are forked from a process that has imported torch, which takes seconds each."""

import os
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, cast

from hydragen_tree.spread import child, processes
from tests.forked import Forked


def start_worker(environment: Mapping[str, str] | None, compiles: bool) -> processes._Process:
    """In the place of `processes._started`."""
    ours, theirs = Pipe()
    with theirs:
        return processes._Process(cast(Any, Forked(_serve, theirs, environment, compiles)), ours)


def _serve(connection: Connection, environment: Mapping[str, str] | None, compiles: bool) -> None:
    os.setsid()
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    child.main(connection.fileno(), compiles)
