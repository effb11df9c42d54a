"""The step before the sandbox, outside it: joins the cgroup, stops being root, starts the level.

A program is never judged as root. Root gives up its identity here, and what root alone could
reach (an interpreter below /root) is bound into a private view of the file system first.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import stat
import sys
from typing import NoReturn

from . import kernel
from .runner import CONTROL_FD

_NOBODY = 65534
_STACK_BYTES = 1 << 30  # room in the address space for the stack limits of the programs


def main(argument: str) -> NoReturn:
    """Become the command of a level.

    Args:
        argument: JSON: `command`, `cgroups` (files to join through), `control_fd` (the runner's
            socket), `read` (paths that must stay reachable), `drop_root`.
    """
    setting = json.loads(argument)
    os.dup2(setting["control_fd"], CONTROL_FD)
    for procs in setting["cgroups"]:
        with open(procs, "w") as file:
            file.write(str(os.getpid()))
    with contextlib.suppress(OSError, ValueError):
        ceiling = resource.getrlimit(resource.RLIMIT_STACK)[1]
        resource.setrlimit(resource.RLIMIT_STACK, (_STACK_BYTES, ceiling))
    if setting["drop_root"] and os.getuid() == 0:
        _stop_being_root(setting["read"])
    try:
        os.execve(setting["command"][0], setting["command"], dict(os.environ))
    except OSError as error:
        sys.exit(f"{setting['command'][0]}: {error}")


def _stop_being_root(read: list[str]) -> None:
    closed = {top for path in read if (top := _closed_ancestor(path))}
    if closed:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    for top in closed:
        inside = [path for path in read if path.startswith(top + "/")]
        places = {path: os.open(path, os.O_PATH) for path in inside}
        kernel.mount("tmpfs", top, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
        for path, place in places.items():
            os.makedirs(path)
            kernel.mount(f"/proc/self/fd/{place}", path, "", kernel.MS_BIND | kernel.MS_REC)
            os.close(place)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _closed_ancestor(path: str) -> str:
    """The topmost directory above `path` that not everybody may pass, or an empty string."""
    parts = path.split("/")
    for length in range(2, len(parts)):
        above = "/".join(parts[:length])
        if os.path.exists(above) and not os.stat(above).st_mode & stat.S_IXOTH:
            return above
    return ""
