"""How torch's threads wait for each other."""

import os
from pathlib import Path

_PRESSURE = Path("/proc/pressure/cpu")  # Linux; how long tasks have waited for a core
_BUSY = 10.0  # percent of the last ten seconds in which one has
_SPINS, _SPINS_BUSY = 30_000, 300


def limit_spinning() -> None:
    """Has torch's threads sleep, where they wait long, instead of keeping a core busy.

    They wait by spinning, for milliseconds. On a core that somebody else uses too, that is time in
    which nobody gets on: a decode step took ten times as long. So on a machine whose cores are all
    in use they sleep almost at once. GNU OpenMP reads its variables once, when torch is loaded, so
    this must come before: the command line calls it as its first act, and in Python the first
    public name that is asked for does. Later it changes nothing. What the user's environment says
    about waiting stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        spins = _SPINS_BUSY if _is_busy(_PRESSURE) else _SPINS
        os.environ.setdefault("GOMP_SPINCOUNT", str(spins))


def _is_busy(pressure: Path) -> bool:
    """Whether somebody had to wait for a core just now; not where the system does not say."""
    try:
        first_line = pressure.read_text(encoding="ascii").splitlines()[0]  # some avg10=0.12 ...
        return float(first_line.split()[1].removeprefix("avg10=")) > _BUSY
    except (OSError, ValueError, IndexError):
        return False
