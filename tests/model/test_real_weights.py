"""Real weights continue texts greedily as transformers does, beyond every window: run by hand.

    TEST_MODELS=FOLDER:FILE.gguf pytest tests/model/test_real_weights.py

CONTRIBUTING.md says where two such models are found on PyPI.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

MODELS = [name for name in os.environ.get("TEST_MODELS", "").split(os.pathsep) if name]
NEW = 64  # tokens

pytestmark = pytest.mark.skipif(not MODELS, reason="TEST_MODELS names no models")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_greedy_continuations_are_those_of_transformers(name: str) -> None:
    path = Path(name)
    sampler = Sampler.from_pretrained(name, device="cpu", dtype="float32")
    text = Path("README.md").read_text()
    tokens = np.array(sampler.tokenizer.encode(text), np.int32)
    root = tokens[:560]  # more than the 512 that most layers of Gemma 3 see
    texts = [tokens[1000:1300], *(np.append(root, tokens[at : at + 140]) for at in (1400, 1700))]
    prompts = [Prompt(str(at), 0, own, ()) for at, own in enumerate(texts)]
    settings = SamplingSettings(temperature=0.0, max_tokens=NEW)
    samples = {one.task_id: one.token_ids for one in sampler.sample(prompts, 1, settings)}
    where = (path.parent, path.name) if path.is_file() else (path, None)
    model = AutoModelForCausalLM.from_pretrained(
        where[0], gguf_file=where[1], dtype=torch.float32
    ).eval()
    for prompt in prompts:
        whole = model.generate(
            torch.from_numpy(prompt.token_ids.astype(np.int64))[None],
            attention_mask=torch.ones(1, len(prompt.token_ids), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=NEW,
            eos_token_id=sorted(sampler.source.eos_ids),
        )
        expected = whole[0, len(prompt.token_ids) :].tolist()
        assert list(samples[prompt.task_id]) == expected
