"""Running states on the device: captured steps of hybrids equal steps of the host.

Captured graphs on a GPU, else Triton's interpreter.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_tree.branch import forecast, groups  # noqa: E402
from hydragen_tree.model.support import unsupported  # noqa: E402
from hydragen_tree.prompt.prompts import Prompt  # noqa: E402
from hydragen_tree.sample.sample import Sample  # noqa: E402
from hydragen_tree.sample.sampler import Sampler  # noqa: E402
from hydragen_tree.settings import SamplingSettings  # noqa: E402
from tests.model.shrunken import shrunken  # noqa: E402

# a kind of model, what is to differ from its small form, and what there is too little of
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("qwen3_next", {}, "memory"),
    ("granitemoehybrid", {"layer_types": ["linear_attention", "attention"]}, "rows"),
    ("falcon_h1", {}, "nothing"),
    ("nemotron_h", {}, "nothing"),
]


def saved(kind: str, changes: dict[str, Any], tokenizer: Path, path: Path) -> None:
    """A small model of random weights with the byte-level tokenizer of `random_model`."""
    config = shrunken(kind, **changes)
    config.vocab_size, config.eos_token_id, config.bos_token_id = 257, 256, None
    if why := unsupported(config, config):
        pytest.skip(why)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.05)
    model.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((tokenizer / name).read_bytes())


def prompts() -> list[Prompt]:
    """A root shared by two prompts, one of which it is itself, and a stranger."""
    rng = np.random.default_rng(0)
    root = rng.integers(0, 250, 20)
    texts = [root, np.append(root, rng.integers(0, 250, 5)), rng.integers(0, 250, 9)]
    return [Prompt(f"p{at}", 0, text.astype(np.int32), ()) for at, text in enumerate(texts)]


def drawn(
    path: Path, backend: str, settings: SamplingSettings, **limits: int
) -> tuple[dict[tuple[str, int], Sample], Sampler]:
    sampler = Sampler.from_pretrained(
        str(path), device=DEVICE, dtype="float32", attention=backend, compiled=False, **limits
    )
    samples = list(sampler.sample(prompts(), 3, settings))
    return {(one.task_id, one.sample_index): one for one in samples}, sampler


@pytest.mark.parametrize(("kind", "changes", "lacking"), CASES, ids=[case[0] for case in CASES])
def test_device_steps_equal_host_steps(
    kind: str,
    changes: dict[str, Any],
    lacking: str,
    random_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows fork where no room was made for them, leave for want of memory, and end."""
    saved(kind, changes, random_model, tmp_path)
    settings = SamplingSettings(temperature=0.5, max_tokens=6, seed=7, logprobs=True)
    expected, host = drawn(tmp_path, "torch", settings)  # the host steps
    assert host.stats.steps_device == 0
    monkeypatch.setattr(forecast, "LEAST_ROWS", 1)
    monkeypatch.setattr(groups, "_LEAST_ROOM", 1)
    shape, pages = host.source.shape, 3 if INTERPRETED else 6
    limits = {
        "nothing": {},
        "rows": {"max_rows": 4},
        "memory": {
            "memory_bytes": 28 * shape.state_bytes + pages * host.page_tokens * shape.token_bytes
        },
    }
    found, device = drawn(tmp_path, "triton", settings, **limits[lacking])
    assert device.stats.steps_host == 0
    assert device.stats.steps_device > 0
    assert found.keys() == expected.keys()
    for name, sample in found.items():
        assert sample.token_ids == expected[name].token_ids
        assert sample.token_logprobs == pytest.approx(expected[name].token_logprobs, abs=1e-3)
