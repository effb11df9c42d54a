"""What a device charges: the constants that ship, and those that `hydragen bench fit` measured."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_config_path

from hydragen_tree.errors import InputError

Number = TypeVar("Number", float, NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class CostModel:
    """What a device charges for a decode step's attention.

    Attributes:
        device: the kind of device the constants are for.
        bandwidth: bytes a second that attention reads keys and values with.
        item_s: seconds that one more segment costs a layer.
    """

    device: str
    bandwidth: float
    item_s: float

    def saved_s(self, n_tokens: Number, branches: Number, token_bytes: int) -> Number:
        """Seconds a layer and step saved by reading `n_tokens` once, not `branches` times."""
        return (branches - 1) * n_tokens * token_bytes / self.bandwidth

    def spent_s(self, rows: Number, merge_bytes: int) -> Number:
        """Seconds a layer and step spent on one more partial of `rows` rows."""
        return rows * merge_bytes / self.bandwidth + self.item_s


# As `hydragen bench fit` found them, rounded: one thread of a 2-core AMD EPYC, and an H200.
CPU = CostModel("cpu", bandwidth=4e9, item_s=40e-6)
CUDA = CostModel("cuda", bandwidth=4.5e12, item_s=0.1e-6)


def costs_file() -> Path:
    """Where fitted constants are kept."""
    return user_config_path("hydragen") / "costs.json"


def device_name(device: torch.device) -> str:
    """What a device's constants are kept under."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def find_cost(device: torch.device) -> CostModel:
    """The constants fitted for a device, else those that ship for its kind.

    Raises:
        InputError: the file cannot be read.
    """
    found = _read(costs_file()).get(device_name(device))
    return found or (CPU if device.type == "cpu" else CUDA)


def save_cost(cost: CostModel) -> Path:
    """Keeps constants for later runs; returns the file."""
    path = costs_file()
    known = _read(path)
    known[cost.device] = cost
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {
        name: {"bandwidth": one.bandwidth, "item_s": one.item_s} for name, one in known.items()
    }
    path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    return path


def _read(path: Path) -> dict[str, CostModel]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: CostModel(name, float(cost["bandwidth"]), float(cost["item_s"]))
            for name, cost in known.items()
        }
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, AttributeError, LookupError, TypeError) as error:
        raise InputError(f"{path}: {error}; run `hydragen bench fit` anew or delete it") from None
