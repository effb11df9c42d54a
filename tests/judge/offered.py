"""Which levels of isolation a machine offers, found out without the sandbox's own code."""

import os
import shutil
import subprocess
import sys
from functools import lru_cache

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.judge import Judge
from hydragen_tree.judge.sandbox.guest import landlock, seccomp

_NOBODY = 65534
_NAMESPACES = {
    "bubblewrap": (
        *("bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc"),
        *("--unshare-uts", "--ro-bind", "/", "/", "--tmpfs", "/tmp", "--proc", "/proc"),
        *("--dev", "/dev", "true"),
    ),
    "unshare": (
        *("unshare", "--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts"),
        *("--fork", "--kill-child=KILL", "--", "sh", "-c"),
        "mount -t tmpfs none /tmp && mount -t proc none /proc",
    ),
}


@lru_cache
def offers(level: str) -> bool:
    """Whether a machine has what a level is made of, for a user without privileges."""
    if level == "rlimits":
        return True
    if level == "landlock":
        return sys.platform == "linux" and landlock.version() > 0 and seccomp.supported()
    command = _NAMESPACES[level]
    if shutil.which(command[0]) is None:
        return False
    user = _NOBODY if os.getuid() == 0 else None
    groups = [] if os.getuid() == 0 else None
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        cwd="/",
        user=user,
        group=user,
        extra_groups=groups,
    )
    return done.returncode == 0


def judge_at(level: str) -> Judge:
    """A judge with one worker at a level; the test is skipped only where the machine lacks it."""
    try:
        return Judge(level, workers=1, cache=False)
    except InputError as reason:
        if offers(level):
            raise
        pytest.skip(f"this machine does not offer {level}: {reason}")
