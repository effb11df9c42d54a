"""Which devices a run is spread over, and a crew of processes on them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from hydragen_tree.branch.budget import free_memory_bytes
from hydragen_tree.errors import InputError
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.spread.processes import ProcessCrew
from hydragen_tree.spread.worker import SamplerMaker


def find_devices(names: str | Sequence[str]) -> list[torch.device]:
    """The devices that a user names.

    Args:
        names: `all` accelerators of this machine; their numbers, `0,1,3`; or names as torch writes
            them, `cuda:0,cuda:1`, or `cpu,cpu` for two processes that compute on the processor.

    Raises:
        InputError: there is no such device, one comes twice, or they are of different kinds.
    """
    given = names if isinstance(names, str) else ",".join(names)
    words = [word.strip() for word in given.split(",")]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    kind = "cpu" if accelerator is None else accelerator.type
    there = 0 if accelerator is None else torch.accelerator.device_count()
    if words == ["all"]:
        words = [str(number) for number in range(there)]
    devices = []
    for word in words:
        name = f"{kind}:{word}" if word.isdecimal() and there else word
        try:
            device = torch.device(name)
        except RuntimeError:
            device = None
        if device is None or not _is_there(device, kind, there):
            raise InputError(_expected(kind, there), setting="devices", value=given)
        devices.append(device)
    if not devices:
        raise InputError(_expected(kind, there), setting="devices", value=given)
    if len({device.type for device in devices}) > 1:
        raise InputError("expected devices of one kind", setting="devices", value=given)
    accelerators = [device for device in devices if device.type != "cpu"]
    if len(set(accelerators)) < len(accelerators):
        raise InputError("expected each device once", setting="devices", value=given)
    return devices


def usual_devices(device: torch.device, ranks: int) -> list[torch.device]:
    """The devices of one model that as many have together, where the user names none.

    Args:
        device: the one of their kind that was chosen.
        ranks: how many they are.

    Raises:
        InputError: there are not so many.
    """
    if device.type == "cpu":
        return [device] * ranks
    there = torch.accelerator.device_count()
    if there < ranks:
        raise InputError(
            f"expected at most {there}, the devices that are here",
            setting="tensor_parallel",
            value=ranks,
        )
    return [torch.device(device.type, number) for number in range(ranks)]


def device_crew(sampler: Sampler, devices: Sequence[torch.device]) -> ProcessCrew:
    """A process for each device, with a sampler like the one given.

    Where several devices have a model together, so many that follow each other are a worker.

    Args:
        sampler: of a device of the same kind.
        devices: where the processes compute.

    Raises:
        InputError: the devices are of another kind than the sampler's, or do not make whole groups.
    """
    kind = sampler.source.device.type
    if any(device.type != kind for device in devices):
        raise InputError(
            f"expected devices of the sampler's kind, {kind}",
            setting="devices",
            value=",".join(map(str, devices)),
        )
    ranks = sampler.source.ranks
    if len(devices) % ranks:
        raise InputError(
            f"expected a divisor of the number of devices, {len(devices)}",
            setting="tensor_parallel",
            value=ranks,
        )
    memory_bytes, threads = sampler.memory_bytes, None
    if kind == "cpu":  # which they share
        memory_bytes = memory_bytes or free_memory_bytes(sampler.source.device) // len(devices)
        threads = max(1, torch.get_num_threads() // len(devices))
    makers: dict[str, list[SamplerMaker]] = {}
    for first in range(0, len(devices), ranks):
        group = devices[first : first + ranks]
        name = " + ".join(map(str, group))
        if kind == "cpu":
            name = f"cpu {len(makers) + 1}"
        makers[name] = [
            partial(
                Sampler,
                replace(sampler.source, device=device),
                attention=sampler.attention,
                memory_bytes=memory_bytes,
                max_rows=sampler.max_rows,
                compiled=sampler.compiled,
                drafts=sampler.drafts,
            )
            for device in group
        ]
    return ProcessCrew(makers, threads, compiles=sampler.compiled)


def _is_there(device: torch.device, kind: str, there: int) -> bool:
    if device.type == "cpu":
        return device.index is None
    return device.type == kind and device.index is not None and device.index < there


def _expected(kind: str, there: int) -> str:
    if not there:
        return "there is no GPU here; expected cpu as often as there shall be processes: cpu,cpu"
    return f"expected all, or some of {', '.join(map(str, range(there)))} ({kind})"
