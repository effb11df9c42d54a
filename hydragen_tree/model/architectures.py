"""What holds for each causal architecture that the installed transformers knows.

By default configurations, as `find_model` judges a model's own; a test builds a small random model
of each that is not refused here, and compares it with its own attention.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hydragen_tree.attention.windows import Window
from hydragen_tree.errors import ModelError
from hydragen_tree.model.rotary import fixed_tokens
from hydragen_tree.model.support import kv_shape, layer_windows, unsupported, why_uncaptured


@dataclass(frozen=True, slots=True)
class Architecture:
    """One kind of model.

    Attributes:
        kind: its `model_type` in `config.json`.
        why_not: why the tree cannot run it, as a clause; None: it runs exactly.
        windows: of the layers that do not see all earlier tokens, each kind of them once.
        fixed_tokens: up to which length it runs; None: any.
        is_captured: a GPU takes its steps by itself; else the host takes each.
    """

    kind: str
    why_not: str | None
    windows: tuple[Window, ...] = ()
    fixed_tokens: int | None = None
    is_captured: bool = True

    def __str__(self) -> str:
        """As it stands in a table."""
        if self.why_not:
            return f"refused: {self.why_not}"
        remarks = [
            f"chunks of {window.tokens:,} tokens"
            if window.is_chunked
            else f"windows of {window.tokens:,} tokens"
            for window in self.windows
        ]
        if not self.is_captured:
            remarks.append("on a GPU the host takes each step")
        limit = f" up to {self.fixed_tokens:,} tokens" if self.fixed_tokens else ""
        return "; ".join([f"exact{limit}", *remarks])


def architectures() -> list[Architecture]:
    """All of them, in the order of their names."""
    with _silent():
        return [architecture(kind) for kind in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)]


def architecture(kind: str) -> Architecture:
    """What holds for one, by its default configuration; a model's own may be more or less.

    Args:
        kind: a `model_type` that transformers knows.
    """
    try:
        whole: PreTrainedConfig = CONFIG_MAPPING[kind]()
    except (StrictDataclassError, ValueError, TypeError):
        return Architecture(kind, f"{kind} has no default configuration to go by")
    text: PreTrainedConfig = whole.get_text_config(decoder=True)
    if why := unsupported(text, whole):
        return Architecture(kind, why)
    try:
        kv_shape(kind, text, torch.float32)
    except ModelError as error:
        return Architecture(kind, str(error))
    windows = dict.fromkeys(window for window in layer_windows(text) if window)
    return Architecture(kind, None, tuple(windows), fixed_tokens(text), not why_uncaptured(text))


@contextmanager
def _silent() -> Iterator[None]:
    """Without what transformers says of configurations that it makes itself."""
    logger = logging.getLogger("transformers")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
