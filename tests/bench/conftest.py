"""A small model with a sharpened head, made once for the modules that draw from it."""

from pathlib import Path

import pytest
from transformers import LlamaConfig

from hydragen_bench import configs, sharpened
from tests.bench.sharpened_model import BITS, LENGTH, VOCABULARY


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the weights of the architecture `tiny` are kept."""
    place = tmp_path_factory.mktemp("weights")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    with pytest.MonkeyPatch.context() as patch:
        config = LlamaConfig(vocab_size=VOCABULARY, **sizes, **heads, bos_token_id=None)
        patch.setitem(configs.CONFIGS, "tiny", config)
        folder = sharpened.find_folder(place, "tiny", BITS, LENGTH)
        sharpened.make_folder("tiny", folder, BITS, LENGTH)
    return place


@pytest.fixture
def folder(weights: Path) -> Path:
    return sharpened.find_folder(weights, "tiny", BITS, LENGTH)
