"""A model's layers through torch's compiler, and where it keeps what it makes of them."""

import os
import warnings
from pathlib import Path

from platformdirs import user_cache_path
from torch import nn
from transformers import PreTrainedModel

_LEFT_AS_THEY_ARE = (nn.ModuleList, nn.Embedding, nn.Linear, nn.Dropout)


def compile_layers(model: PreTrainedModel) -> None:
    """Has the layers compiled, once for all of them and any number of tokens.

    What stands beside the layers, the rotary embedding and the last norm, is compiled too:
    uncompiled they are as many launches as a layer. What the compiler makes is kept on disk.

    Args:
        model: any; one without a list of layers stays as it is.
    """
    # The angles of the rotary embedding are a product in fp32, and have to be. Not only for
    # this call: compiling is put off until a module is called.
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
    keep_compiled()
    depth = model.config.get_text_config(decoder=True).num_hidden_layers
    stacks = (
        (owner, layers)
        for owner in model.modules()
        for layers in owner.children()
        if isinstance(layers, nn.ModuleList) and len(layers) == depth
    )
    stack = next(stacks, None)
    if stack is None:
        return
    owner, layers = stack
    beside = (m for m in owner.children() if not isinstance(m, _LEFT_AS_THEY_ARE))
    for module in (*layers, *beside):
        module.compile(dynamic=True)


def keep_compiled() -> Path:
    """Has torch keep what it compiles in our cache, unless the user's environment names a place.

    Returns:
        The folder.
    """
    ours = user_cache_path("hydragen") / "inductor"
    return Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ours)))
