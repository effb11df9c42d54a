"""Seccomp filters: which system calls a program under judgement may not make.

A filter is a list of classic BPF instructions over `struct seccomp_data` (number at byte 0,
architecture at 4, arguments at 16 + 8 i, little-endian). Refused calls fail with an error; the
program lives on and gets the verdict it earns.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Mapping
from functools import lru_cache

from . import kernel

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_FILTER, _NEW_LISTENER = 1, 8
_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL, _NOTIFY = 0x7FFF0000, 0x00050000, 0x80000000, 0x7FC00000
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_NAMESPACE_FLAGS = 0x7E020000  # every CLONE_NEW* that clone takes
_CLONE_THREAD = 0x00010000

_Table = Mapping[str, "tuple[int, int | None]"]

# name: (x86_64, aarch64); None where the architecture has no such call.
_ALWAYS = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # things that outlive the process or are kept per user
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # memory that no limit counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # a large, rarely needed surface of the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    # the machine
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "syslog": (103, 116),
    "iopl": (172, None),
    "ioperm": (173, None),
    "vhangup": (153, 58),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
}

# Refused as well where no namespace of its own surrounds the program.
_SOCKET = {"socket": (41, 198)}
_BARE = {
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "truncate": (76, 45),
}

# Landlock does not look at attributes, so a file's owner could change them anywhere.
_ATTRIBUTES = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
}

_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_FORKS = {"fork": (57, None), "vfork": (58, None)}
# Calls whose first argument must be this process (or 0, or its group): everybody else is outside.
_SIGNALS = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261),
}
_FCNTL = {"x86_64": 72, "aarch64": 25}
_IOCTL = {"x86_64": 16, "aarch64": 29}
_PRCTL = {"x86_64": 157, "aarch64": 167}
_FCNTL_OWNER = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: a signal to anybody through SIGIO
_IOCTL_OWNER = (0x8901, 0x8902, 0x5412)  # FIOSETOWN, SIOCSPGRP; TIOCSTI types into a terminal

# Stands for the process in a filter that is the same for all; nothing else in one looks like it.
_ANY_PID = b"\xa9\xcb\xed\x7f"


def supported() -> bool:
    """Whether this architecture's call numbers are known here."""
    return platform.machine() in _ARCHITECTURE


def prepare() -> None:
    """Assemble all filters, once instead of in every process that needs one."""
    namespaced_filter()
    for tools, told in ((False, False), (False, True), (True, False)):
        _bare_template(tools, told)


@lru_cache
def namespaced_filter() -> bytes:
    """The filter for a program inside namespaces of its own."""
    return _assemble(_Program(), [_ALWAYS])


def bare_filter(pid: int, *, tools: bool = False, told: bool = False) -> bytes:
    """The filter for process `pid` without namespaces: it may not start processes at all.

    Args:
        pid: the process that will install the filter; the only one it may signal.
        tools: for a compiler: may start processes and set the attributes of its files.
        told: to start a process or open a socket waits for whoever listens, who refuses it.
    """
    return _bare_template(tools, told).replace(_ANY_PID, struct.pack("<I", pid))


@lru_cache
def _bare_template(tools: bool, told: bool) -> bytes:
    program = _Program()
    [any_pid] = struct.unpack("<I", _ANY_PID)
    program.allow_argument(_numbers(_SIGNALS), 0, (0, any_pid), errno.EPERM)
    program.refuse_argument([_FCNTL[platform.machine()]], 1, _FCNTL_OWNER, errno.EPERM)
    program.refuse_argument([_IOCTL[platform.machine()]], 1, _IOCTL_OWNER, errno.EPERM)
    # The program dies with the runner, whatever it thinks of that.
    program.refuse_argument(
        [_PRCTL[platform.machine()]], 0, (kernel.PR_SET_PDEATHSIG,), errno.EPERM
    )
    if tools:
        return _assemble(program, [_ALWAYS, _BARE, _SOCKET])
    again, never = (None, None) if told else (errno.EAGAIN, errno.EPERM)
    program.require_bits([_CLONE[platform.machine()]], 0, _CLONE_THREAD, again)
    program.refuse(_numbers(_FORKS), again)
    program.refuse(_numbers(_SOCKET), never)
    return _assemble(program, [_ALWAYS, _BARE, _ATTRIBUTES])


def install(filter_code: bytes) -> None:
    """Apply a filter to this process and its children, for good. Needs no_new_privs set."""
    program = _SockFprog(len(filter_code) // 8, filter_code)
    kernel.prctl(kernel.PR_SET_SECCOMP, 2, ctypes.byref(program))


def install_told(filter_code: bytes) -> int:
    """`install` for a filter some of whose refusals are told to a listener.

    Returns:
        A descriptor of the listener's.

    Raises:
        OSError: a filter with a listener is in force already, or the kernel knows of none.
    """
    program = _SockFprog(len(filter_code) // 8, filter_code)
    number = _SECCOMP[platform.machine()]
    return kernel.syscall("seccomp", number, _SET_FILTER, _NEW_LISTENER, ctypes.byref(program))


def is_socket(number: int) -> bool:
    """Whether a call opens a socket."""
    return number in _numbers(_SOCKET)


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _numbers(table: _Table) -> list[int]:
    column = ("x86_64", "aarch64").index(platform.machine())
    return [row[column] for row in table.values() if row[column] is not None]  # type: ignore[misc]


def _assemble(program: _Program, tables: list[_Table]) -> bytes:
    program.refuse_bits([_CLONE[platform.machine()]], 0, _NAMESPACE_FLAGS, errno.EPERM)
    program.refuse([_CLONE3], errno.ENOSYS)  # its flags are behind a pointer; libc falls back
    for table in tables:
        program.refuse(_numbers(table), errno.EPERM)
    return program.code()


def _refusal(error: int | None) -> int:
    """What a filter says of a call: an error, or None to have somebody else say no."""
    return _NOTIFY if error is None else _ERRNO | error


class _Program:
    """Collects rules; each starts and ends with the call's number in the accumulator."""

    def __init__(self) -> None:
        self._out = [
            (_LOAD, 0, 0, 4),
            (_JUMP_EQ, 1, 0, _ARCHITECTURE[platform.machine()]),
            (_RETURN, 0, 0, _KILL),
            (_LOAD, 0, 0, 0),
        ]
        if platform.machine() == "x86_64":
            self._out += [(_JUMP_GE, 0, 1, _X32_BIT), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]

    def refuse(self, numbers: list[int], error: int | None) -> None:
        for number in numbers:
            self._out += [(_JUMP_EQ, 0, 1, number), (_RETURN, 0, 0, _refusal(error))]

    def refuse_argument(
        self, numbers: list[int], index: int, values: tuple[int, ...], error: int
    ) -> None:
        """Refuse the calls when the low word of an argument is one of `values`."""
        for number in numbers:
            body = [(_JUMP_EQ, len(values) - i, 0, v) for i, v in enumerate(values)]
            self._guard(number, index, [*body, (_JUMP_GE, 1, 1, 0)], error)

    def allow_argument(
        self, numbers: list[int], index: int, values: tuple[int, ...], error: int
    ) -> None:
        """Refuse the calls unless the low word of an argument is one of `values`."""
        for number in numbers:
            count = len(values)
            body = [(_JUMP_EQ, count - i, 0, v) for i, v in enumerate(values)]
            self._guard(number, index, body, error)

    def refuse_bits(self, numbers: list[int], index: int, bits: int, error: int) -> None:
        for number in numbers:
            self._guard(number, index, [(_JUMP_SET, 0, 1, bits)], error)

    def require_bits(self, numbers: list[int], index: int, bits: int, error: int | None) -> None:
        for number in numbers:
            self._guard(number, index, [(_JUMP_SET, 1, 0, bits)], error)

    def _guard(
        self, number: int, index: int, test: list[tuple[int, int, int, int]], error: int | None
    ) -> None:
        """If this is the call: load an argument, run `test`, refuse or go on.

        `test` falls through into the refusal, or jumps over exactly one instruction behind its own
        end to go on.
        """
        body = [(_LOAD, 0, 0, 16 + 8 * index), *test, (_RETURN, 0, 0, _refusal(error))]
        self._out += [(_JUMP_EQ, 0, len(body) + 1, number), *body, (_LOAD, 0, 0, 0)]

    def code(self) -> bytes:
        instructions = [*self._out, (_RETURN, 0, 0, _ALLOW)]
        return b"".join(struct.pack("<HBBI", *one) for one in instructions)
