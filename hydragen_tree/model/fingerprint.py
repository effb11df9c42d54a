"""What identifies a model in a manifest: a little of each of its files."""

import hashlib
from pathlib import Path

from transformers.utils import cached_file

from hydragen_kernels.inputs import dtype_name
from hydragen_tree.model.chunk_sizes import HOMER
from hydragen_tree.model.loading import ModelSource


def fingerprint(source: ModelSource) -> dict[str, str]:
    """What identifies a model in a manifest.

    The digest covers, of the configuration and of each weight file, the name, the size and the
    first and last megabyte: enough to notice another checkpoint without reading tens of gigabytes.
    It is of files alone: what transformers makes of a configuration holds its own version, the
    folder's path, and what loading wrote into it. The dtypes of keys and values and of linear
    layers, or how many blocks of a stack there are, are named where they are not that of the rest,
    and the batch-invariant mode where it is taken: a row's numbers then depend on how many ranks
    sum up, and on nothing else.
    """
    digest = hashlib.sha256()
    for file in _model_files(source):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 20))
            stream.seek(max(0, size - (1 << 20)))
            digest.update(stream.read(1 << 20))
    kv_dtype = dtype_name(source.kv_dtype) if source.kv_dtype != source.dtype else None
    long_prompt = source.long_prompt if source.long_prompt == HOMER else None
    kinds = {"kv_dtype": kv_dtype, "weights": source.layers_kind, "long_prompt": long_prompt}
    others = {name: kind for name, kind in kinds.items() if kind is not None}
    if source.batch_invariant:
        others["batch_invariant"] = "true" if source.ranks == 1 else f"by {source.ranks} ranks"
    return {
        "name": source.name,
        "revision": source.revision or "",
        "dtype": dtype_name(source.dtype),
        **others,
        "device": source.device.type,
        "sha256": digest.hexdigest(),
    }


def stored_bytes(source: ModelSource) -> int:
    """Size of the model's files: about what its weights take once they are loaded."""
    if source.stack is not None:
        return source.stack.n_bytes
    return sum(file.stat().st_size for file in _model_files(source))


def _model_files(source: ModelSource) -> list[Path]:
    """The configuration and the weights: all that decides what is computed."""
    if source.gguf is not None:
        return [Path(source.path, source.gguf)]
    if Path(source.path).is_dir():
        folder = Path(source.path)
    else:
        config = cached_file(source.path, "config.json", revision=source.revision)
        folder = Path(config).parent
    return sorted(
        file
        for file in folder.iterdir()
        if file.name == "config.json" or file.suffix in (".safetensors", ".bin")
    )
