"""Finding, checking and loading models, so that what cannot work is refused before weights load."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from hydragen_kernels.inputs import FP8, dtype_name
from hydragen_tree.attention.heads import Heads
from hydragen_tree.attention.table import backend
from hydragen_tree.errors import InputError, ModelError, Setting, first_line, one_line
from hydragen_tree.imports import without_gpu_libraries
from hydragen_tree.model.chunk_sizes import HOMER, refuse_to_condense
from hydragen_tree.model.creation import Undrawn
from hydragen_tree.model.device import find_device
from hydragen_tree.model.dtypes import asked_dtype, auto_or_fp8, linear_dtype, refuse_fp8_heads
from hydragen_tree.model.eos import stated_eos
from hydragen_tree.model.locating import locate
from hydragen_tree.model.quantised_files import StoredWeights, stored_weights
from hydragen_tree.model.quantising import quantise_layers
from hydragen_tree.model.ranks import ALONE, MOST_ORDERED_RANKS, Ranks
from hydragen_tree.model.recurrence import kinds_of
from hydragen_tree.model.rotary import fixed_tokens, longrope_tokens
from hydragen_tree.model.stack_files import StackPart, choose_part, load_stack
from hydragen_tree.model.states import with_states
from hydragen_tree.model.stored_fp8 import load_stored
from hydragen_tree.model.support import (
    keeps_states,
    kv_shape,
    layer_windows,
    refuse_unsupported,
    with_windows,
)
from hydragen_tree.model.tensor_parallel import load_part, rank_config, refuse_to_split
from hydragen_tree.model.weights import check_loaded, refuse_broken_files, without_reports
from hydragen_tree.shape import KVShape


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that was found and understood; its weights are still on disk.

    Attributes:
        name: as the user gave it.
        path: directory or hub id that transformers loads.
        revision: of the hub repository, if any.
        gguf: the file in `path` that holds it all, if it is of that kind.
        config: the text model's configuration.
        shape: sizes of keys and values.
        dtype: weights and activations.
        weights: those of linear layers, but for the head: as the others, or float8_e4m3fn.
        kv_dtype: keys and values.
        device: where they will live.
        context_tokens: longest sequence the model was made for.
        fixed_tokens: length beyond which rotary frequencies would be others for every length; None
            if there is no such length.
        eos_ids: tokens that end a text.
        stored: what the weights are in the files.
        stack: how much of a stack is loaded; None: the model is none.
        long_prompt: what becomes of prompts beyond the context: `refuse` or `homer`.
        ranks: processes that have the model together; configuration and sizes are of one's part.
        batch_invariant: a row's numbers are the same bits whatever shares its batch.
    """

    name: str
    path: str
    revision: str | None
    gguf: str | None
    config: PreTrainedConfig
    shape: KVShape
    dtype: torch.dtype
    weights: torch.dtype
    kv_dtype: torch.dtype
    device: torch.device
    context_tokens: int
    fixed_tokens: int | None
    eos_ids: frozenset[int]
    stored: StoredWeights
    stack: StackPart | None = None
    long_prompt: str = "refuse"
    ranks: int = 1
    batch_invariant: bool = False

    @property
    def layers_kind(self) -> str | None:
        """What linear layers are, if not as the rest: `float8_e4m3fn`, `3 of 8 blocks`."""
        if self.stack is not None:
            return str(self.stack)
        return dtype_name(self.weights) if self.weights != self.dtype else None

    @property
    def origin(self) -> dict[str, str | None]:
        """What transformers' loaders have to know besides the path."""
        return _origin(self.revision, self.gguf)

    @property
    def is_quantised(self) -> bool:
        """Whether linear layers multiply numbers of fewer bits than the rest of the model has."""
        return self.weights != self.dtype

    @property
    def heads(self) -> Heads:
        """What attention backends are chosen by."""
        text = self.config.get_text_config(decoder=True)
        is_capped = getattr(text, "attn_logit_softcapping", None) is not None
        return Heads.of(
            *(self.shape, self.dtype, self.device, self.kv_dtype),
            is_capped=is_capped,
            is_windowed=any(layer_windows(text)),
        )

    def check_length(self, n_tokens: int, what: str) -> None:
        """Refuses sequences that the model or its attention cannot hold.

        Raises:
            InputError: longer than the model's context.
            ModelError: long enough that rotary frequencies would depend on the length.
        """
        if n_tokens > self.context_tokens:
            raise InputError(
                f"{what}: {n_tokens} tokens with ",
                Setting("max_tokens"),
                f", but {self.name} holds {self.context_tokens}; shorten the prompt or lower ",
                Setting("max_tokens"),
            )
        if self.fixed_tokens is not None and n_tokens > self.fixed_tokens:
            raise ModelError(
                f"{what}: {n_tokens} tokens with ",
                Setting("max_tokens"),
                f", but beyond {self.fixed_tokens} tokens the rotary frequencies of {self.name} "
                "change with every token (dynamic NTK), and keys would not be shared; keep "
                "sequences shorter or choose another model",
            )
        limit = longrope_tokens(self.config)
        if self.batch_invariant and limit is not None and n_tokens > limit:
            raise InputError(
                f"{what}: {n_tokens} tokens with ",
                Setting("max_tokens"),
                f", but a longest sequence of more than {limit} changes the rotary frequencies of "
                f"{self.name} for all others (longrope); keep sequences shorter or leave it out",
                setting="batch_invariant",
            )


def find_model(
    model: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    kv_dtype: str = "auto",
    weights: str = "auto",
    weights_memory: int | None = None,
    long_prompt: str = "refuse",
    tensor_parallel: int = 1,
    batch_invariant: bool = False,
) -> ModelSource:
    """Reads a model's configuration and refuses what the tree cannot run, without its weights.

    Args:
        model: `tiny` (the model that ships), a directory, a GGUF file, or a hub id.
        revision: branch, tag or commit on the hub.
        dtype: `auto` (float32 on a CPU, else as stored), `float32`, `bfloat16`, `float16`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, ...
        kv_dtype: of keys and values: `auto` (like the rest), or `fp8`, which is not exact.
        weights: of linear layers: `auto` (like the rest), or `fp8`, on a CPU also `int8` or
            `bfloat16`, none of which is exact.
        weights_memory: bytes for all weights of a stack; None: all of it.
        long_prompt: of prompts beyond the context: `refuse`, or `homer`, which is not exact.
        tensor_parallel: devices that have the model together.
        batch_invariant: a row's numbers are to be the same bits whatever shares its batch.

    Raises:
        ModelError: not found, not readable, or of a kind that is not supported.
        InputError: a device or type there is not, or not for this model, or not with
            `batch_invariant`; or it cannot be split.
    """
    place = find_device(device)
    path, gguf = locate(model, revision)
    with without_gpu_libraries(place.type):
        whole, stored = _read_config(model, path, _origin(revision, gguf))
    config = rank_config(model, whole, tensor_parallel)
    named = getattr(config, "dtype", None)
    kind = asked_dtype(dtype, named if isinstance(named, torch.dtype) else torch.float32, place)
    kv_kind = auto_or_fp8("kv_dtype", kv_dtype, kind, place)
    shape = kv_shape(model, config, kv_kind)
    if keeps_states(config):
        shape = with_states(shape, kinds_of(config, kind))
    if long_prompt != HOMER and not batch_invariant:
        shape = with_windows(shape, config)
    if kv_kind == FP8:
        refuse_fp8_heads(place, shape)
    if weights_memory is not None and not stored.is_stack:
        raise InputError(
            f"{model} is no stack, of which a part could be loaded; `hydragen stack` makes one",
            setting="weights_memory",
            value=weights_memory,
        )
    if stored.is_stack and weights != "auto":
        raise InputError(f"{model} is a stack; use auto", setting="weights", value=weights)
    linear = linear_dtype("fp8" if stored.is_fp8 else weights, kind, place)
    refuse_to_condense(long_prompt, model, config, tensor_parallel, batch_invariant)
    if tensor_parallel > 1:
        refuse_to_split(tensor_parallel, gguf, stored, linear, place)
    source = ModelSource(
        name=model,
        path=path,
        revision=revision,
        gguf=gguf,
        config=config,
        shape=shape,
        dtype=kind,
        weights=linear,
        kv_dtype=kv_kind,
        device=place,
        context_tokens=int(getattr(config, "max_position_embeddings", 0) or 1 << 62),
        fixed_tokens=fixed_tokens(config),
        eos_ids=stated_eos(model, path, revision, config),
        stored=stored,
        stack=choose_part(model, path, kind, weights_memory) if stored.is_stack else None,
        long_prompt=long_prompt,
        ranks=tensor_parallel,
        batch_invariant=batch_invariant,
    )
    if batch_invariant:
        _refuse_variant(source)
    return source


def _refuse_variant(source: ModelSource) -> None:
    """Refuses what is not computed row by row in one order.

    What only the model's code shows is found when it is loaded, see `invariance`.
    """
    variants = {
        f"{source.device.type}": source.device.type not in ("cpu", "cuda"),
        "linear layers in fewer bits": source.is_quantised,
        "a stack": source.stack is not None,
        "layers that keep running states": source.shape.state_bytes > 0,
        "a model that more than two devices have together": source.ranks > MOST_ORDERED_RANKS,
    }
    why = [f"not with {what}" for what, is_so in variants.items() if is_so]
    if limit := backend("ordered").why_not(source.heads):
        why.append(f"its attention: {limit}")
    if why:
        raise InputError(f"{why[0]}; leave it out", setting="batch_invariant")


def load_tokenizer(source: ModelSource) -> Any:
    """The model's tokenizer.

    Raises:
        ModelError: the model has none, or it cannot be read.
    """
    try:
        return AutoTokenizer.from_pretrained(source.path, **source.origin)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"its tokenizer cannot be loaded: {_key_or_line(error)}",
            setting="model",
            value=source.name,
        ) from None


def load_weights(source: ModelSource, ranks: Ranks = ALONE) -> PreTrainedModel:
    """Loads the weights and moves them to the device.

    They pass through the host's memory: transformers puts them elsewhere only with a package more
    (accelerate). Layers that are quantised keep their weights of before, in the host's memory, to
    be compared with.

    Args:
        source: the model.
        ranks: those that have it together, as many as `source` says.

    Raises:
        ModelError: files are missing or broken, or tensors are missing in them, or have other
            sizes; or there is nothing to quantise.
        InputError: this process is to have it alone, and it is one's part of several.
    """
    if source.ranks != ranks.size:
        raise InputError(
            "a process for each part of the model draws, not this one; give ",
            Setting("devices"),
            ", or a sampler that is spread over them",
            setting="tensor_parallel",
            value=source.ranks,
        )
    if source.gguf is None and Path(source.path).is_dir():
        refuse_broken_files(source.name, Path(source.path))
    try:
        with without_reports(), Undrawn():
            model, found = _load(source, ranks)
    except (ModelError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # safetensors, OSError, pickle, size mismatches: many types
        raise ModelError(
            f"its weights cannot be loaded: {first_line(error)}",
            setting="model",
            value=source.name,
        ) from error
    check_loaded(source.name, found)
    rounds = source.is_quantised and not source.stored.is_fp8
    if rounds and not quantise_layers(model, source.device, source.weights):
        raise ModelError(
            "has no linear layers that are taken to fewer bits; leave out ",
            Setting("weights"),
            setting="model",
            value=source.name,
        )
    return model.to(source.device)


def _load(source: ModelSource, ranks: Ranks) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model, and what transformers found in its files."""
    named = source.name, source.path, source.revision
    if ranks.size > 1:
        return load_part(*named, source.config, source.dtype, source.device, ranks)
    if source.stack is not None:
        place = source.name, source.path
        return load_stack(*place, source.stack, source.dtype, source.device)
    if source.stored.is_fp8:
        return load_stored(*named, source.dtype, source.device)
    model, found = AutoModelForCausalLM.from_pretrained(
        source.path,
        dtype=source.dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # named by the caller
        **source.origin,
    )
    return model, found


def _read_config(
    model: str, path: str, origin: dict[str, str | None]
) -> tuple[PreTrainedConfig, StoredWeights]:
    """The text model's configuration, or why there is none; and what its weights are stored as."""
    why = "its GGUF file cannot be read: " if "gguf_file" in origin else ""
    if "gguf_file" not in origin and Path(path).is_dir():
        _check_config_file(model, Path(path, "config.json"))
    try:
        whole = AutoConfig.from_pretrained(path, **origin)
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise ModelError(why + first_line(error), setting="model", value=model) from None
    except (StrictDataclassError, TypeError, ArithmeticError) as error:
        raise ModelError(f"config.json: {_one_line(error)}", setting="model", value=model) from None
    text: PreTrainedConfig = whole.get_text_config(decoder=True)
    refuse_unsupported(model, text, whole)
    return text, StoredWeights() if "gguf_file" in origin else stored_weights(model, whole)


def _check_config_file(model: str, file: Path) -> None:
    """Whether a configuration is a JSON object; transformers' messages do not say what is not."""
    try:
        is_object = isinstance(json.loads(file.read_bytes()), dict)
        why = None if is_object else "expected a JSON object"
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except ValueError as error:
        why = f"not JSON: {error}"
    if why:
        raise ModelError(f"config.json: {why}", setting="model", value=model)


def _origin(revision: str | None, gguf: str | None) -> dict[str, str | None]:
    return {"revision": revision} if gguf is None else {"gguf_file": gguf}


def _one_line(error: Exception) -> str:
    return one_line(str(error)).rstrip(".")


def _key_or_line(error: Exception) -> str:
    return f"no key {error}" if isinstance(error, KeyError) else _one_line(error)
