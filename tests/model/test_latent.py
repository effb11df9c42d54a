"""Latent attention with tails of latent vectors: equal to dense."""

from pathlib import Path

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hydragen_tree.model.latent import with_latent_tails
from tests.model.shrunken import shrunken
from tests.model.test_every_architecture import check_equal, found

KINDS = [
    *("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "longcat_flash", "minicpm3"),
    *("mistral4", "youtu", "kimi_linear", "bailing_hybrid"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_tails_of_latent_vectors_are_equal_to_dense(kind: str, tmp_path: Path) -> None:
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        pytest.skip(f"this transformers has no {kind}")
    config = shrunken(kind)
    source = found(config, tmp_path)
    assert source is not None
    source = with_latent_tails(source, "torch")
    assert source.shape.latent_dim == config.kv_lora_rank + config.qk_rope_head_dim
    check_equal(config, source)
