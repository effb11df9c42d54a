"""A Ray cluster, as far as it matters here: joined, and asked what it has."""

import re
import signal
import threading
from importlib.util import find_spec
from typing import Any

from hydragen_tree.errors import HydragenError, InputError, first_line


def join(address: str) -> None:
    """Makes this process a driver of a cluster until it ends, unless it is one already.

    Args:
        address: `auto` for the cluster of this machine or of RAY_ADDRESS, as in a submitted job;
            `local` to start one here, that ends with this process; or what `ray.init` takes.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    ray = import_ray()
    if ray.is_initialized():
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(first_line(error), setting="ray", value=address) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's would end us without a word


def resources() -> dict[str, float]:
    """What the cluster that was joined has, such as `CPU` and `GPU`."""
    found: dict[str, float] = import_ray().cluster_resources()
    return found


def why_lost(error: Exception) -> HydragenError:
    """What became of an actor, in a line: Ray's own words are many, and the first say little.

    Args:
        error: that its answer was.
    """
    kinds, said = import_ray().exceptions, str(error)
    found = (re.search(rf"\b{name}: (\S+)", said) for name in ("pid", "ip"))
    pid, address = (match and match[1] for match in found)
    machine = f"its machine, {address}," if address else "its machine"
    if isinstance(error, kinds.OutOfMemoryError):
        return HydragenError("killed by Ray, since its machine was running out of memory")
    if isinstance(error, kinds.ActorUnavailableError):
        return HydragenError("its machine does not answer, or has lost the process")
    if isinstance(error, kinds.NodeDiedError) or "its node has died" in said:
        return HydragenError(f"{machine} is lost")
    if isinstance(error, kinds.ActorDiedError) and pid:
        hint = "was there too little memory?"
        return HydragenError(f"its process, {pid} on {address}, has ended unexpectedly ({hint})")
    return HydragenError(first_line(error))


def import_ray() -> Any:
    """Ray's module.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("ray") is None:
        raise InputError("needs Ray: pip install 'hydragen-tree[ray]'", setting="ray")
    import ray

    return ray
