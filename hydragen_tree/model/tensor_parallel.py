"""One rank's part of a model, for models that are too large for one device.

transformers' plan of a kind of model (`base_model_tp_plan`) says which layers are split: by their
outputs (`colwise`: queries, keys, values; gate and up), or by their inputs (`rowwise`: what
follows those), after which the ranks' results are summed. All else, the embedding and the head
among it, every rank has whole.

A rank's model is the same model with fewer heads and a narrower inner layer: `rank_config` is its
configuration, and all that goes by a configuration, memory and plans, is of one rank then. That a
plan and such a configuration mean the same is seen on models without weights, before any is read.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from hydragen_kernels.inputs import FP8
from hydragen_tree.errors import InputError, ModelError, first_of
from hydragen_tree.model.creation import without_weights
from hydragen_tree.model.quantised_files import StoredWeights
from hydragen_tree.model.ranks import Ranks
from hydragen_tree.model.support import layer_heads
from hydragen_tree.model.weights import safetensors_files

_BY_OUTPUTS, _BY_INPUTS = "colwise", "rowwise"
# Kinds of layers that every rank may have whole, whatever the plan would save.
_WHOLE = {
    "colwise_gather_output",
    "embedding_rowwise",
    "embedding_colwise",
    "replicate",
    "replicated_with_grad_allreduce",
}
_DIVIDED = ("num_attention_heads", "num_key_value_heads", "intermediate_size")


class SummedLinear(nn.Module):
    """A linear layer of which each rank has some of the inputs."""

    def __init__(self, linear: nn.Linear, ranks: Ranks) -> None:
        super().__init__()
        self.linear, self.ranks = linear, ranks

    def forward(self, x: Tensor) -> Tensor:
        """`[..., inputs of this rank]` to `[..., outputs]`, the same on all ranks."""
        total: Tensor = self.ranks.sum_up(self.linear(x))
        return total


def rank_config(model: str, config: PreTrainedConfig, ranks: int) -> PreTrainedConfig:
    """The configuration of what one rank has of a model.

    Args:
        model: as the user gave it.
        config: of the whole text model.
        ranks: how many have the model together; 1: the configuration stays as it is.

    Raises:
        InputError: ranks < 1.
        ModelError: the model cannot be split, or not into so many parts.
    """
    if ranks < 1:
        raise InputError("expected an integer >= 1", setting="tensor_parallel", value=ranks)
    if ranks == 1:
        return config
    plan = getattr(config, "base_model_tp_plan", None)
    if not plan:
        raise _refused(ranks, f"transformers has no plan by which {config.model_type} is split")
    if others := sorted({*plan.values()} - {_BY_OUTPUTS, _BY_INPUTS} - _WHOLE):
        raise _refused(
            ranks,
            f"{model} ({config.model_type}) has layers that are not split here: "
            f"{', '.join(others)}",
        )
    part = _divided(model, config, ranks)
    _check_plan(model, config, part, ranks)
    return part


def refuse_to_split(
    ranks: int,
    gguf: str | None,
    stored: StoredWeights,
    weights: torch.dtype,
    device: torch.device,
) -> None:
    """Refuses what only one process can hold yet.

    Args:
        ranks: how many are asked for.
        gguf: the file, where the model is one of that kind.
        stored: what the weights are in the files.
        weights: those of linear layers on the device.
        device: where they will be.

    Raises:
        InputError: says what it is.
    """
    why = None
    if gguf is not None:
        why = "a GGUF file is not read in parts"
    elif weights == FP8 or stored != StoredWeights():
        why = "weights in few bits are not split"
    elif device.type not in ("cpu", "cuda"):
        why = f"devices of the kind {device.type} do not sum with each other"
    if why:
        raise InputError(f"{why}; leave it out", setting="tensor_parallel", value=ranks)


def _divided(model: str, config: PreTrainedConfig, ranks: int) -> PreTrainedConfig:
    heads = {*layer_heads(config)}
    if len(heads) > 1:
        raise _refused(ranks, f"the layers of {model} differ in their heads")
    (own,) = heads
    part = deepcopy(config)
    part.head_dim = own.key_dim
    for name in _DIVIDED:
        whole = own.kv_heads if name == "num_key_value_heads" else getattr(config, name, None)
        if not isinstance(whole, int):
            raise _refused(ranks, f"{model} states no single {name}")
        if whole % ranks:
            raise _refused(
                ranks, f"{name} of {model} is {whole}, which {ranks} ranks cannot share evenly"
            )
        setattr(part, name, whole // ranks)
    return part


def _check_plan(model: str, config: PreTrainedConfig, part: PreTrainedConfig, ranks: int) -> None:
    """Whether the plan splits just what fewer heads and a narrower layer make smaller."""
    whole, own = (without_weights(each) for each in (config, part))
    sizes = {name: tuple(weight.shape) for name, weight in own.named_parameters()}
    for name, weight in whole.named_parameters():
        expected = list(weight.shape)
        dim = split_dim(whole, name)
        if dim is not None:
            expected[dim] //= ranks
        if sizes.get(name) != tuple(expected):
            raise _refused(
                ranks,
                f"transformers' plan for {config.model_type} does not split {name} of {model} as "
                "its heads are split",
            )


def load_part(
    source_name: str,
    path: str,
    revision: str | None,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device,
    ranks: Ranks,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Loads a rank's part of a checkpoint to its device, and reads no more than that.

    Args:
        source_name: the model as the user gave it.
        path: a directory, or the hub's id.
        revision: of the hub's repository.
        config: as `rank_config` gives it.
        dtype: of weights and activations.
        device: the rank's.
        ranks: those that have the model.

    Returns:
        The part, whose sums go through `ranks`; and what was found in the files.

    Raises:
        ModelError: there are no safetensors, or they name their tensors in another way.
    """
    folder = path
    if not Path(path).is_dir():
        kinds = ["*.safetensors", "*.json"]
        folder = snapshot_download(path, revision=revision, allow_patterns=kinds)
    own = without_weights(config)
    sizes = {name: tuple(weight.shape) for name, weight in own.named_parameters()}
    parts = _Parts(source_name, Path(folder), sizes, ranks)
    nothing = torch.zeros((), dtype=dtype)  # takes no memory, however it is expanded
    tensors = {name: nothing.expand(size) for name, size in parts.sizes.items()}
    tensors |= parts.read(tensors.keys() - sizes.keys())  # what is no parameter is small
    model, found = type(own).from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # named by the caller
    )
    if lacking := sorted(found["missing_keys"]):
        raise _other_names(source_name, lacking)
    if not found["mismatched_keys"]:
        _fill(source_name, model, parts, device)
    sum_rows(model, ranks)
    return model, found


def sum_rows(model: PreTrainedModel, ranks: Ranks) -> None:
    """Has a rank's part sum up, with the other ranks, what layers give that are split by inputs.

    Args:
        model: a part, its weights loaded; changed in place. A bias is added by rank 0.
        ranks: those that have the model.
    """
    split = [name for name, _ in model.named_modules() if _style(model, name) == _BY_INPUTS]
    for name in split:
        layer = model.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise ModelError(f"{name} is no linear layer, and is not split; choose another model")
        if layer.bias is not None and not ranks.leads:
            layer.bias = nn.Parameter(torch.zeros_like(layer.bias), requires_grad=False)
        model.set_submodule(name, SummedLinear(layer, ranks))


class _Parts:
    """What one rank reads of the tensors of a checkpoint.

    Attributes:
        sizes: of every tensor in the files: that of the rank's part, or, of what is no part of a
            parameter, of the whole.
    """

    def __init__(
        self, model: str, folder: Path, own: Mapping[str, tuple[int, ...]], ranks: Ranks
    ) -> None:
        self._files = safetensors_files(folder)
        self._ranks = ranks
        if not self._files:
            raise ModelError(
                "has no safetensors, of which ranks read their parts", setting="model", value=model
            )
        self.sizes: dict[str, tuple[int, ...]] = {}
        self._dims: dict[str, int | None] = {}
        for file in self._files:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    whole = tuple(tensors.get_slice(name).get_shape())
                    part = own.get(name, whole)
                    self._dims[name] = self._split(whole, part)
                    is_part = whole == part or self._dims[name] is not None
                    self.sizes[name] = part if is_part else whole

    def read(self, names: Collection[str]) -> Iterator[tuple[str, Tensor]]:
        """The rank's parts of these tensors, one after the other, on the host."""
        rank = self._ranks.rank
        for file in self._files:
            with safe_open(file, framework="pt") as tensors:
                for name in filter(names.__contains__, tensors.keys()):
                    content, dim = tensors.get_slice(name), self._dims[name]
                    if dim is None:
                        yield name, content[...]
                        continue
                    size = self.sizes[name][dim]
                    own = slice(rank * size, (rank + 1) * size)
                    yield name, content[(slice(None),) * dim + (own,)]

    def _split(self, whole: tuple[int, ...], part: tuple[int, ...]) -> int | None:
        """The dimension in which a tensor is split; None: in none, or it does not fit."""
        if len(whole) != len(part):
            return None
        differ = [dim for dim, (a, b) in enumerate(zip(whole, part, strict=True)) if a != b]
        fits = len(differ) == 1 and whole[differ[0]] == self._ranks.size * part[differ[0]]
        return differ[0] if fits else None


def _fill(name: str, model: PreTrainedModel, parts: _Parts, device: torch.device) -> None:
    """Puts the tensors of the files where their sizes already are."""
    homes: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for key, weight in module._parameters.items():
            if weight is not None:
                homes.setdefault(id(weight), []).append((module, key))
    known = dict(model.named_parameters(remove_duplicate=False))
    unread = {id(weight) for weight in known.values()}
    for key, content in parts.read(known.keys()):
        weight = known[key]
        loaded = nn.Parameter(content.to(device, weight.dtype), requires_grad=False)
        for module, own in homes[id(weight)]:
            module._parameters[own] = loaded
        unread.discard(id(weight))
    if lacking := sorted(key for key, weight in known.items() if id(weight) in unread):
        raise _other_names(name, lacking)


def split_dim(model: PreTrainedModel, parameter: str) -> int | None:
    """The dimension in which ranks have parts of a parameter; None: they have it whole.

    Args:
        model: a whole one or a part, before `sum_rows`.
        parameter: its name.
    """
    module, _, kind = parameter.rpartition(".")
    style = _style(model, module)
    if style == _BY_OUTPUTS:
        return 0
    return 1 if style == _BY_INPUTS and kind == "weight" else None


def _style(model: PreTrainedModel, module: str) -> str | None:
    """How the plan splits a module; None: not at all."""
    prefix = f"{model.base_model_prefix}."
    if not module.startswith(prefix):
        return None
    general = re.sub(r"\.\d+(?=\.|$)", ".*", module.removeprefix(prefix))
    style: str | None = (model.config.base_model_tp_plan or {}).get(general)
    return style


def _other_names(model: str, lacking: Sequence[str]) -> ModelError:
    return ModelError(
        f"its files lack {first_of(lacking)}, or have it under other names, by which ranks do not "
        "find their parts; get them anew, or run it on one device",
        setting="model",
        value=model,
    )


def _refused(ranks: int, why: str) -> InputError:
    return InputError(
        f"{why}; choose another number, or another model", setting="tensor_parallel", value=ranks
    )
