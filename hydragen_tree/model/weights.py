"""Weights: are all files there and whole, before one is loaded; do they fit the model, after."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from hydragen_tree.errors import ModelError, first_of

_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_OTHERS = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_LFS = b"version https://git-lfs"
_log = logging.getLogger("hydragen_tree")


def refuse_broken_files(model: str, folder: Path) -> None:
    """Refuses weights of which a part is missing or cut off; reads headers, no tensors.

    Args:
        model: as the user gave it.
        folder: the model's directory.

    Raises:
        ModelError: names the file.
    """
    for why in _faults(folder):
        raise ModelError(
            f"its weights cannot be loaded: {why}; get it anew", setting="model", value=model
        )


def safetensors_files(folder: Path) -> list[Path]:
    """The files that a model's weights are in; empty where they are of another kind."""
    if (folder / _WHOLE).exists():
        return [folder / _WHOLE]
    if not (folder / _INDEX).exists():
        return []
    names = json.loads((folder / _INDEX).read_bytes())["weight_map"].values()
    return [folder / name for name in sorted(set(names))]


def check_loaded(model: str, found: Mapping[str, Any]) -> None:
    """Refuses weights that do not fill the model: transformers puts random numbers in the gaps.

    Args:
        model: as the user gave it.
        found: transformers' loading info: keys that are missing, mismatched and unexpected.

    Raises:
        ModelError: names the tensors.
    """
    wrong = [f"{name} is {list(a)}, not {list(b)}" for name, a, b in found["mismatched_keys"]]
    if wrong or found["missing_keys"]:
        lacking = f"lack {first_of(sorted(found['missing_keys']))}"
        what = f"do not fit config.json: {first_of(sorted(wrong))}" if wrong else lacking
        raise ModelError(
            f"its files {what}; get them anew or choose another", setting="model", value=model
        )
    if unused := sorted(found["unexpected_keys"]):
        named = first_of(unused)
        _log.warning("%s: tensors in its files that it has no use for: %s", model, named)


def plain_config(folder: str) -> PreTrainedConfig:
    """A directory's configuration, as if its weights were stored in their own dtype."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(folder)
    for part in {id(x): x for x in (config, config.get_text_config(decoder=True))}.values():
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    return config


def with_tensors(
    kind: type[PreTrainedModel],
    config: PreTrainedConfig,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model of tensors that have been read already.

    Args:
        kind: the model's class.
        config: its configuration.
        tensors: by name.
        dtype: of the model.

    Returns:
        The model, and what transformers found in the tensors.
    """
    model, found = kind.from_pretrained(
        None,
        config=config,
        state_dict=dict(tensors),
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # named by who asks
    )
    return model, found


@contextmanager
def without_reports() -> Iterator[None]:
    """Keeps transformers from printing tables of tensors: what matters of it is said here."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _faults(folder: Path) -> Iterator[str]:
    if (folder / _WHOLE).exists():
        names = [_WHOLE]
    elif (folder / _INDEX).exists():
        try:
            names = sorted(set(json.loads((folder / _INDEX).read_bytes())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            yield f"{_INDEX}: not a readable index of weights ({error!r})"
            return
        yield from (
            f"{_INDEX} names {name}, which is not there"
            for name in names
            if not (folder / name).is_file()
        )
    else:
        if not any((folder / name).exists() for name in _OTHERS):
            yield f"no weights in the directory: no {_WHOLE}, no {_INDEX}, no {_OTHERS[0]}"
        return
    yield from (f"{name}: {why}" for name in names if (why := _fault(folder / name)))


def _fault(path: Path) -> str | None:
    """What is wrong with a safetensors file: 8 bytes of length, a JSON header, tensors."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(len(_LFS))
            if start == _LFS:
                return "a pointer of Git LFS in place of the file (git lfs pull)"
            n_header = int.from_bytes(start[:8], "little")
            if size < 8 or n_header > size - 8:
                return f"cut off, or no safetensors file ({size:,} bytes)"
            file.seek(8)
            header = json.loads(file.read(n_header))
        ends = [int(t["data_offsets"][1]) for name, t in header.items() if name != "__metadata__"]
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "not a safetensors file"
    expected = 8 + n_header + max(ends, default=0)
    return None if size == expected else f"{size:,} bytes, expected {expected:,}"
