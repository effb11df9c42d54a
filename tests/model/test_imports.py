"""What a run of the command line imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.model.shrunken import shrunken

# Half of the time that all imports of a run would take.
SPARED = (
    *("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", "triton"),
    *("scipy.optimize", "sklearn"),
)

NO_GPU = """
from pathlib import Path
from hydragen_tree import imports
imports._GPU = Path("nowhere")
"""
PREPARED = f"""{NO_GPU}
from hydragen_cli.console import prepare_libraries
prepare_libraries("tiny", quiet=True)
"""
WORKER = f"""{NO_GPU}
from hydragen_tree.spread.child import quieten
quieten(compiles=False)
from hydragen_tree.spread.worker import Worker
"""

SAMPLES = """
from hydragen_tree import SamplingSettings
from hydragen_tree.sample.sampler import Sampler
sampler = Sampler.from_pretrained("tiny", device="cpu")
drawn = sampler.sample(["def add(a, b):"], 4, SamplingSettings(max_tokens=12, seed=5))
print([sample.completion for sample in drawn])
"""

CHECK = f"""
import sys
loaded = [name for name in {SPARED} if name in sys.modules]
assert not loaded, loaded
"""

# What this process hid or denied while it imported transformers is as it was.
RESTORED = """
import gc, torch, torch.distributed, scipy.optimize
from torch.distributed.tensor import DTensor
assert gc.isenabled()
assert torch.distributed.is_available()
double = torch.compile(lambda x: x * 2, backend="eager", fullgraph=True)
assert double(torch.ones(3)).tolist() == [2, 2, 2]
"""

# What is left out is no part of any model that can be asked for.
CLASSES = """
from transformers import AutoModelForCausalLM
classes = AutoModelForCausalLM._model_mapping
assert len([classes[config] for config in classes.keys()]) > 100
"""

# Of the compiler transformers' masks need a context, where a model makes them under `vmap`.
MASKS = """
import torch
from transformers import LlamaConfig
from transformers.masking_utils import create_causal_mask

block = torch.arange(12) // 4
def same_block(batch, head, query, key):
    return block[query] == block[key]

config = LlamaConfig()
config._attn_implementation = "sdpa"
x = torch.zeros(1, 12, 8)
mask = create_causal_mask(
    config=config, inputs_embeds=x, attention_mask=None, past_key_values=None,
    position_ids=None, and_mask_function=same_block,
)
assert torch.equal(mask[0, 0], (block[:, None] == block) & torch.ones(12, 12).tril().bool())
"""

# a library of kernels, as far as transformers looks at it
LIBRARY = """
__version__ = "9.0"
def __getattr__(name):
    def refused(*args, **kwargs):
        raise RuntimeError("no GPU")
    return refused
"""
ON_A_CPU = """
import torch
from hydragen_tree.model.loading import find_model, load_weights

model = load_weights(find_model(FOLDER, device="cpu"))
model(torch.arange(70)[None] % 90)
"""


def python(code: str, *more_paths: Path) -> str:
    path = os.pathsep.join((os.environ.get("PYTHONPATH", ""), *map(str, more_paths)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("prepared", [PREPARED, WORKER], ids=["command", "worker"])
def test_a_run_on_a_cpu_imports_no_compiler_and_nothing_of_mathematics(prepared: str) -> None:
    python(prepared + SAMPLES + CHECK)


def test_every_causal_model_can_be_imported_without_them() -> None:
    python(PREPARED + CLASSES)


def test_samples_are_those_of_a_process_that_imports_everything() -> None:
    assert python(PREPARED + SAMPLES) == python(SAMPLES)


@pytest.mark.parametrize("later", [RESTORED, MASKS], ids=["packages", "masks"])
def test_what_was_left_out_is_there_when_it_is_asked_for(later: str) -> None:
    python(PREPARED + later)


def test_what_is_compiled_has_a_compiler_that_knows_what_to_leave_alone() -> None:
    python(
        PREPARED.replace("quiet=True", "quiet=True, compiles=True") + "import sys\n"
        "assert 'torch._dynamo' in sys.modules\n"
        "from hydragen_tree.model.step import attention\n"
        "assert attention._torchdynamo_disable\n"
    )


def test_modules_that_are_loaded_already_stay_as_they_are() -> None:
    python(
        "import sys, transformers.modeling_utils as before\n"
        "from hydragen_tree.imports import spare_imports\n"
        "spare_imports()\n"
        "assert sys.modules['transformers.modeling_utils'] is before\n"
    )


@pytest.mark.parametrize("prepared", [PREPARED, ""], ids=["spared", "plain"])
def test_on_a_cpu_layers_with_states_do_without_libraries_of_gpus(
    prepared: str, tmp_path: Path
) -> None:
    for name in ("fla", "causal_conv1d"):
        (tmp_path / f"{name}.py").write_text(LIBRARY)
    model = tmp_path / "model"
    AutoModelForCausalLM.from_config(shrunken("qwen3_next")).save_pretrained(model)
    python(f"{prepared}\nFOLDER = {str(model)!r}\n{ON_A_CPU}", tmp_path)
