"""Landlock: which files a process may open, without any privilege. Linux 5.13 and later.

A ruleset handles a set of rights (everything the kernel knows); a rule gives some of them back
below a path. What is handled and not given back is refused.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from . import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
# Rights known to each version; the list ends with the newest this file was written for.
_RIGHTS_BY_VERSION = (0, 0x1FFF, 0x3FFF, 0x7FFF, 0x7FFF, 0xFFFF)
_NETWORK_SINCE, _SCOPES_SINCE = 4, 6
_ALL_TCP, _ALL_SCOPES = 3, 3  # bind | connect; abstract sockets | signals

READ = _READ_FILE | _READ_DIR | _EXECUTE
WRITE = 0xFFFF


def version() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    try:
        return kernel.syscall("landlock", _CREATE_RULESET, 0, 0, _GET_VERSION)
    except OSError:
        return 0


def create(rules: Iterable[tuple[str, int]]) -> int:
    """Make a ruleset: files only as `rules` say, no TCP, no signals or abstract sockets outwards.

    Args:
        rules: (path, READ or WRITE); paths that do not exist are left out.

    Returns:
        A file descriptor for `restrict`.

    Raises:
        OSError: the kernel has no Landlock.
    """
    current = version()
    rights = _RIGHTS_BY_VERSION[min(current, len(_RIGHTS_BY_VERSION) - 1)]
    attributes = struct.pack(
        "<QQQ",
        rights,
        _ALL_TCP if current >= _NETWORK_SINCE else 0,
        _ALL_SCOPES if current >= _SCOPES_SINCE else 0,
    )
    size = 24 if current >= _SCOPES_SINCE else 16 if current >= _NETWORK_SINCE else 8
    ruleset = kernel.syscall("landlock", _CREATE_RULESET, ctypes.c_char_p(attributes), size, 0)
    for path, allowed in rules:
        _allow(ruleset, path, allowed & rights)
    return ruleset


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _FILE_RIGHTS
        rule = ctypes.c_char_p(struct.pack("<Qi", rights, place))
        kernel.syscall(f"landlock {path}", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(place)


def restrict(ruleset: int) -> None:
    """Put this process and its children under a ruleset, for good. Needs no_new_privs set."""
    kernel.syscall("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
