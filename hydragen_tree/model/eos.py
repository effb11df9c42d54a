"""What a model's generation_config.json states: which tokens end a text, and how to draw."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import cached_file

from hydragen_tree.errors import ModelError, one_line

_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


def stated_sampling(path: str, revision: str | None) -> dict[str, float]:
    """How generation_config.json would have samples drawn, by the names of `SamplingSettings`.

    Args:
        path: the model's directory, or its name on the hub.
        revision: of the hub repository.

    Returns:
        What it states of temperature, top_k, top_p and min_p; nothing where there is no such file.
    """
    file = _generation_config(path, revision)
    try:
        stated = {} if file is None else json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # its end tokens could not be read either, which is said
    return {name: stated[name] for name in _SAMPLING if type(stated.get(name)) in (int, float)}


def stated_eos(
    model: str, path: str, revision: str | None, config: PreTrainedConfig
) -> frozenset[int]:
    """The end tokens of generation_config.json, or else of config.json.

    Args:
        model: what the user calls it, for messages.
        path: its directory, or its name on the hub.
        revision: of the hub repository.
        config: its config.json.

    Raises:
        ModelError: generation_config.json is broken.
    """
    file = _generation_config(path, revision)
    stated = None if file is None else _read_eos(model, file)
    eos = getattr(config, "eos_token_id", None) if stated is None else stated
    if eos is None:
        return frozenset()
    return frozenset(eos if isinstance(eos, list) else [eos])


def _generation_config(path: str, revision: str | None) -> Path | None:
    """The file; a model need not have one."""
    try:
        return Path(cached_file(path, "generation_config.json", revision=revision))
    except OSError:
        return None


def _read_eos(model: str, file: Path) -> Any:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        eos = settings.get("eos_token_id")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"generation_config.json: not a readable JSON object ({one_line(str(error))}); mend "
            "or remove it: it says which tokens end a text",
            setting="model",
            value=model,
        ) from None
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(type(token) is int for token in ids):
        raise ModelError(
            f"generation_config.json: eos_token_id {eos!r}, expected a token id or a list of them",
            setting="model",
            value=model,
        )
    return eos
