"""Memory limits for a whole process tree, where the system lets us make control groups.

Version 2 is used where a group with the memory controller is delegated to us, version 1 where we
may make groups ourselves. Nobody has to: without, the runner watches the tree's resident memory,
and address space is limited for each process.
"""

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "hydragen-judge-"
_OVERHEAD_BYTES = 64 << 20  # runner, init, what the kernel keeps for the container
_MAX_PROCESSES = 512
_EVENTS_BYTES = 4096


@dataclass(slots=True)
class ControlGroup:
    """A control group of one container.

    Args:
        version: 1 or 2.
        memory: the group's directory in the memory hierarchy.
        pids: the group's directory where processes are counted; None where they are not.
    """

    version: int
    memory: Path
    pids: Path | None
    _limit_bytes: int = field(default=0, init=False)
    _events: int = field(default=-1, init=False)

    @property
    def join_files(self) -> list[str]:
        """The files that a process writes its id to in order to join."""
        places = {self.memory, self.pids or self.memory}
        return [str(place / "cgroup.procs") for place in sorted(places)]

    def limit(self, memory_bytes: int) -> None:
        """Set the limit for what runs next.

        Args:
            memory_bytes: what one program may use.
        """
        if memory_bytes == self._limit_bytes:
            return
        value = str(memory_bytes + _OVERHEAD_BYTES)
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        (self.memory / name).write_text(value)
        self._limit_bytes = memory_bytes

    def kills(self) -> int:
        """How often the kernel has ended a process of this group for want of memory."""
        if self._events < 0:
            name = "memory.events" if self.version == 2 else "memory.oom_control"
            self._events = os.open(self.memory / name, os.O_RDONLY | os.O_CLOEXEC)
        for line in os.pread(self._events, _EVENTS_BYTES, 0).splitlines():
            key, _, value = line.partition(b" ")
            if key == b"oom_kill":
                return int(value)
        return 0

    def remove(self) -> None:
        """Remove the group; its processes have ended or are about to."""
        if self._events >= 0:
            os.close(self._events)
            self._events = -1
        for place in {self.memory, self.pids or self.memory}:
            for _ in range(50):
                with contextlib.suppress(OSError):
                    place.rmdir()
                if not place.exists():
                    break
                time.sleep(0.01)


def make_control_group(name: str) -> ControlGroup | None:
    """Make a control group below our own; None where that is not allowed.

    Args:
        name: a name that nobody else uses.
    """
    own = _own_groups()
    try:
        if "" in own and (_ROOT / "cgroup.controllers").exists():
            return _make_second(_ROOT / own[""].lstrip("/"), name)
        if "memory" in own:
            return _make_first(own, name)
    except OSError:
        return None
    return None


def _own_groups() -> dict[str, str]:
    """Our group in every hierarchy; the unified one is called ''."""
    own: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own |= dict.fromkeys(controllers.split(","), path)
    return own


def _make_second(parent: Path, name: str) -> ControlGroup | None:
    """Version 2 hands controllers only to groups without processes of their own in the parent."""
    enabled = (parent / "cgroup.subtree_control").read_text().split()
    if "memory" not in enabled:
        parent = parent.parent
        enabled = (parent / "cgroup.subtree_control").read_text().split()
    if "memory" not in enabled:
        return None
    _sweep(parent)
    place = parent / name
    place.mkdir()
    group = ControlGroup(2, place, place if "pids" in enabled else None)
    with contextlib.suppress(OSError):
        (place / "memory.swap.max").write_text("0")
    if group.pids:
        (place / "pids.max").write_text(str(_MAX_PROCESSES))
    return group


def _make_first(own: dict[str, str], name: str) -> ControlGroup:
    memory = _ROOT / "memory" / own["memory"].lstrip("/") / name
    _sweep(memory.parent)
    memory.mkdir()
    group = ControlGroup(1, memory, None)
    with contextlib.suppress(OSError, KeyError):
        pids = _ROOT / "pids" / own["pids"].lstrip("/") / name
        _sweep(pids.parent)
        pids.mkdir()
        (pids / "pids.max").write_text(str(_MAX_PROCESSES))
        group.pids = pids
    return group


def unique_name(number: int) -> str:
    """A name for a group, which tells whose it is."""
    return f"{_PREFIX}{os.getpid()}-{number}"


def _sweep(parent: Path) -> None:
    """Remove the groups of judges that were killed."""
    for group in parent.glob(f"{_PREFIX}*"):
        owner = group.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            with contextlib.suppress(OSError):
                group.rmdir()
