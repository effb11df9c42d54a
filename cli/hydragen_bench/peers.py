"""Other engines that `hydragen bench` measures, each in a process and a Python of its own."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hydragen_bench import peer_child, vllm_child
from hydragen_bench.child import run_child
from hydragen_tree.errors import InputError
from hydragen_tree.spread.processes import OF_RANKS


class _Kind(NamedTuple):
    """What runs an engine.

    Attributes:
        package: that is imported.
        distribution: what pip calls it.
        script: of ours.
        environment: of its process.
        invariant: what else turns on its batch-invariant mode; empty: it has none.
        ranks: what else lets several devices have a model together; empty: they cannot.
    """

    package: str
    distribution: str
    script: Path
    environment: Mapping[str, str] = {}
    invariant: Mapping[str, str] = {}
    ranks: Mapping[str, str] = {}


# Its workers are processes of their own; sums go without NVLink's multicast, as ours do.
_VLLM_RANKS = {
    **OF_RANKS,
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    "VLLM_ALLREDUCE_USE_FLASHINFER": "0",
}
_VLLM_FUNCTIONS = {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}  # ours, sent to its engine's process
_VLLM, _OTHERS = Path(vllm_child.__file__), Path(peer_child.__file__)
KINDS = {
    "vllm": _Kind(
        "vllm", "vllm", _VLLM, _VLLM_FUNCTIONS, {"VLLM_BATCH_INVARIANT": "1"}, _VLLM_RANKS
    ),
    # the older runner has cascade attention, in versions that have two
    "vllm-cascade": _Kind(
        "vllm",
        "vllm",
        _VLLM,
        {**_VLLM_FUNCTIONS, "VLLM_USE_V2_MODEL_RUNNER": "0"},
        ranks=_VLLM_RANKS,
    ),
    "transformers": _Kind("transformers", "transformers", _OTHERS),
    "llama.cpp": _Kind("llama_cpp", "llama-cpp-python", _OTHERS),
}


@dataclass(frozen=True, slots=True)
class Peer:
    """An engine and the Python that has it.

    Attributes:
        name: of `KINDS`.
        python: path of the Python.
    """

    name: str
    python: str = field(default=sys.executable)


def find_peer(name: str, python: str | None) -> Peer:
    """An engine, once it is known to be there.

    Args:
        name: of `KINDS`.
        python: the Python that has it; None: the one that runs us.

    Raises:
        InputError: it is not there, or the engine is not in it.
    """
    peer = Peer(name, python or sys.executable)
    package = KINDS[name].package
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{package}') is None)"
    try:
        found = subprocess.run([peer.python, "-c", look], capture_output=True, check=False)
    except OSError as error:
        raise InputError(
            error.strerror or str(error), setting="peer_python", value=peer.python
        ) from None
    if found.returncode:
        raise InputError(
            f"{peer.python} has no {package}; pip install {KINDS[name].distribution}, best in an "
            "environment of its own whose Python is then named by --peer-python",
            setting="against",
            value=name,
        )
    return peer


def run_peer(peer: Peer, job: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The lines of its script's answer.

    Args:
        peer: the engine.
        job: see `vllm_child.py` and `peer_child.py`.
        folder: for its files.

    Raises:
        HydragenError: it failed; the message ends with its last lines.
    """
    kind = KINDS[peer.name]
    alone = folder / "script"  # Python looks for modules beside a script: there are none here
    alone.mkdir()
    script = shutil.copy(kind.script, alone)
    command = [peer.python, str(script)]
    invariant = kind.invariant if job.get("batch_invariant") else {}
    ranks = kind.ranks if job.get("tensor_parallel", 1) > 1 else {}
    environment = {**kind.environment, **invariant, **ranks}
    return run_child(peer.name, command, job, folder, environment)
