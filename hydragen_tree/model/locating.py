"""Where a model is: the one that ships, a directory, a GGUF file, or on the hub."""

from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from hydragen_tree.errors import ModelError, Setting, first_line
from hydragen_tree.model.tiny import MODEL_DIR

TINY = "tiny"

_HUB_S = 10  # seconds in which the hub has to answer


def locate(model: str, revision: str | None) -> tuple[str, str | None]:
    """The directory or hub id of a model, and the GGUF file in it if it is one.

    Args:
        model: as the user gave it.
        revision: of the hub repository.

    Raises:
        ModelError: there is no such model, or nothing that reads it; or it has no revisions.
    """
    path = Path(model).expanduser()
    if revision is not None and (model == TINY or path.exists()):
        raise ModelError(
            f"{model} lies on this machine, and only models of the hub have revisions; leave it "
            "out, or give a hub id as ",
            Setting("model"),
            setting="revision",
            value=revision,
        )
    if model == TINY:
        return str(MODEL_DIR), None
    if path.is_dir():
        return str(path), None
    if path.is_file() and path.suffix == ".gguf":
        if lacking := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
            raise ModelError(
                f"a GGUF file, which transformers loads with {' and '.join(lacking)}; "
                "pip install 'hydragen-tree[gguf]'",
                setting="model",
                value=model,
            )
        return str(path.parent), path.name
    if path.exists() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelError(
            f"no such directory; expected `{TINY}`, a model directory (config.json, tokenizer, "
            "safetensors), a GGUF file or a hub id such as owner/name",
            setting="model",
            value=model,
        )
    return _on_hub(model, revision), None


def _on_hub(model: str, revision: str | None) -> str:
    """The id itself where the hub answers, else the directory of the copy in the local cache.

    Asked once: without a network, transformers would try half a minute for every file.
    """
    try:
        HfApi().model_info(model, revision=revision, timeout=_HUB_S)
    except HfHubHTTPError:
        pass  # an answer; what is wrong is said where the model is loaded
    except Exception as silence:  # of the library below the hub's, which has changed
        try:
            return snapshot_download(model, revision=revision, local_files_only=True)
        except (OSError, ValueError):
            raise ModelError(
                f"not in the local cache, and the hub cannot be asked: {first_line(silence)}; "
                "without a network, name a model's directory",
                setting="model",
                value=model,
            ) from None
    return model
