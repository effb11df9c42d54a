"""The few system calls Python has no function for, through ctypes. Linux only."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from typing import NoReturn

# PyDLL keeps the interpreter lock during a call, so that the child of `clone` holds it too.
_libc = ctypes.PyDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_SYS_MOUNT_SETATTR = 442
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1
# Made here, as ctypes keeps weak references to types of arrays; see `ending.py`.
_READ_ONLY = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY, 0, 0, 0)
_NO_CAPABILITIES = (ctypes.c_uint32 * 6)()
_LAST_CAPABILITY = 63


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def syscall(what: str, number: int, *args: object) -> int:
    """Make one raw system call. Integers go as unsigned longs.

    Raises:
        OSError: the call failed; the message starts with `what`.
    """
    words = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in args]
    return _check(_libc.syscall(ctypes.c_long(number), *words), what)


def prctl(option: int, *args: object) -> None:
    """prctl(2).

    Raises:
        OSError: the kernel refused.
    """
    words = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in args]
    padding = [ctypes.c_ulong(0)] * (4 - len(words))
    _check(_libc.prctl(ctypes.c_int(option), *words, *padding), f"prctl {option}")


def set_thread_stack(size: int) -> None:
    """Set the stack size of threads to come, which else is the stack limit we were started with."""
    if not hasattr(_libc, "pthread_setattr_default_np"):  # glibc only
        return
    attributes = ctypes.create_string_buffer(256)
    _libc.pthread_attr_init(attributes)
    _libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(size))
    _libc.pthread_setattr_default_np(attributes)


def clone(flags: int) -> int:
    """Fork into new namespaces; 0 in the child. For a process with one thread only."""
    return syscall("clone", _SYS_CLONE[platform.machine()], flags | signal.SIGCHLD, 0, 0, 0, 0)


def unshare(flags: int) -> None:
    """unshare(2).

    Raises:
        OSError: the kernel refused.
    """
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2): flags are the numbers of <sys/mount.h>.

    Raises:
        OSError: the kernel refused.
    """
    _check(
        _libc.mount(
            source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()
        ),
        f"mount {source} on {target}",
    )


def unmount(target: str) -> None:
    """Detach a mount at once; it disappears when its last user does."""
    _check(_libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def make_read_only(target: str) -> None:
    """Make a mount and everything mounted below it read-only."""
    path = ctypes.c_char_p(target.encode())
    syscall(
        f"mount_setattr {target}",
        _SYS_MOUNT_SETATTR,
        ctypes.c_int(-100),  # AT_FDCWD
        path,
        _AT_RECURSIVE,
        _READ_ONLY,
        ctypes.sizeof(_READ_ONLY),
    )


def pivot_root(new_root: str) -> None:
    """Make `new_root` (a mount point) the root directory and detach the old one."""
    os.chdir(new_root)
    number = {"x86_64": 155, "aarch64": 41}[platform.machine()]
    dot = ctypes.c_char_p(b".")
    syscall("pivot_root", number, dot, dot)
    unmount(".")
    os.chdir("/")


def exit(status: int) -> NoReturn:
    """End the process through the C library, which writes what C code has left in its buffers."""
    _libc.exit(ctypes.c_int(status))
    raise AssertionError


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def bound_capabilities() -> None:
    """Let neither this process nor any below it gain a capability by executing a file."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # not ours to drop, or no such capability
            break


def drop_capabilities() -> None:
    """Give up every capability."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = _CapHeader(version=0x20080522, pid=0)
    _check(_libc.capset(ctypes.byref(header), _NO_CAPABILITIES), "capset")
