"""Which tokens end a text, as the model's own files state it."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import cached_file

from hydragen_tree.errors import ModelError, one_line


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
    try:
        file = cached_file(path, "generation_config.json", revision=revision)
    except OSError:
        file = None  # a model need not have one
    stated = None if file is None else _read_eos(model, Path(file))
    eos = getattr(config, "eos_token_id", None) if stated is None else stated
    if eos is None:
        return frozenset()
    return frozenset(eos if isinstance(eos, list) else [eos])


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
