"""Where a model is put: a device that is there, or an error that says which are."""

import re
import warnings

import torch

from hydragen_tree.errors import HydragenError, InputError, Setting, first_line


def find_device(name: str) -> torch.device:
    """The device that a name stands for, with its number: which one is current may change.

    Args:
        name: as torch writes it, such as `cpu` or `cuda:1`; `auto` for the accelerator if there is
            one, else the CPU.

    Raises:
        InputError: there is no such device, or it cannot be used.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    place = str(accelerator or "cpu") if name == "auto" else name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that torch means to drop
            device = torch.empty(0, device=place).device
        if device.type != "meta":  # which computes shapes alone
            return device
        why = None
    except (RuntimeError, AssertionError, ImportError) as error:
        why = first_line(error)
    there = ["cpu"]
    if accelerator is not None:
        count = torch.accelerator.device_count()
        there += [accelerator.type, *(f"{accelerator.type}:{n}" for n in range(count))]
    if place in there and why is not None:
        raise InputError(why, setting="device", value=name)  # it is there, and refuses
    # What torch says of these is its list of all operators, or that it found an error in itself.
    raise InputError(
        f"torch {torch.__version__} finds no such device here; expected auto, {', '.join(there)}",
        setting="device",
        value=name,
    )


def out_of_memory(error: torch.OutOfMemoryError) -> HydragenError:
    """What to say when a device's memory is at its end, though a run keeps within what it found."""
    asked = re.search(r"ried to allocate ([\d.]+ \w+)", str(error))
    wanted = f" for {asked[1]} more" if asked else ""
    return HydragenError(
        f"out of memory: the device had no room{wanted}; see what else runs there, or lower ",
        Setting("memory_bytes"),
        " or ",
        Setting("max_rows"),
    )
