"""The cost constants that `hydragen bench fit` has measured, kept by the device's name."""

import json
from pathlib import Path

import torch
from platformdirs import user_config_path

from hydragen_tree.errors import InputError
from hydragen_tree.fold import CPU, CUDA, CostModel


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
