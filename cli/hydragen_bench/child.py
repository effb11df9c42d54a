"""Measurements in a process of their own: a JSON job in, lines of JSON out."""

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydragen_tree.errors import HydragenError

_TAIL_LINES = 15
# The line that ends a traceback, behind the name of a process or a logger.
_RAISED = re.compile(r"(\(.*?\) )?(ERROR .*?\] )?[\w.]*(Error|Exception): ")
_NO_CHANGE: Mapping[str, str] = {}


def run_child(
    name: str,
    command: Sequence[str],
    job: Mapping[str, Any],
    folder: Path,
    environment: Mapping[str, str] = _NO_CHANGE,
) -> list[dict[str, Any]]:
    """Runs `command JOB ANSWER` to its end.

    Args:
        name: what it measures, for messages.
        command: a Python and its script.
        job: what it is told, besides `started`, the time (`time.time()`) when it was called.
        folder: for its files.
        environment: variables that it gets beside ours.

    Returns:
        The lines of its answer.

    Raises:
        HydragenError: it failed; the message ends with its last lines.
    """
    asked, answered, log = (folder / f"{name}.{ending}" for ending in ("job", "answer", "log"))
    asked.write_text(json.dumps({**job, "started": time.time()}), encoding="utf-8")
    with log.open("wb") as output:
        done = subprocess.run(
            [*command, str(asked), str(answered)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            env={**os.environ, **environment},
        )
    if done.returncode:
        failed = f"{name} failed with exit code {done.returncode}:"
        raise HydragenError("\n".join([failed, *last_lines(log)]))
    return [json.loads(line) for line in answered.read_text(encoding="utf-8").splitlines()]


def last_lines(log: Path) -> list[str]:
    """What a process wrote last, for messages.

    An engine whose own process failed ends with a long account of having noticed that. Its cause is
    the exception that was raised last before that, which here precedes the last lines.
    """
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    before, last = lines[:-_TAIL_LINES], lines[-_TAIL_LINES:]
    return [*[line for line in before if _RAISED.match(line)][-1:], *last]
