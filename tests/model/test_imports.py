"""What a run of the command line imports, and what comes with the compiler when it is used."""

import os
import subprocess
import sys

HEAVY = ("sympy", "scipy.optimize", "torch._inductor", "torch.distributed.tensor")

REPORT = f"""
import sys, types
from hydragen_cli.console import prepare_libraries
prepare_libraries("tiny", quiet=True)
from hydragen_tree.sample.sampler import Sampler
loaded = [name for name in {HEAVY} if name in sys.modules]
assert not loaded, loaded
assert type(sys.modules["torch._dynamo"]) is not types.ModuleType
"""

SAMPLES = """
from hydragen_tree import SamplingSettings
sampler = Sampler.from_pretrained("tiny", device="cpu")
drawn = sampler.sample(["def add(a, b):"], 4, SamplingSettings(max_tokens=12, seed=5))
print([sample.completion for sample in drawn])
"""

# Submodules first, which alone would import each other in a circle.
COMPILER = """
from torch._dynamo.utils import counters
import torch
from transformers.integrations import deepgemm
assert type(torch._dynamo) is types.ModuleType, type(torch._dynamo)
assert deepgemm.is_sm100._dynamo_marked_constant
assert torch._dynamo._trace_wrapped_higher_order_op.TransformGetItemToIndex
double = torch.compile(lambda x: x * 2, backend="eager")
assert double(torch.ones(2)).tolist() == [2.0, 2.0]
assert counters["stats"]["unique_graphs"] == 1
"""

# What is hidden from the compiler before there is one has to be hidden from it afterwards.
HIDDEN = """
import torch
hidden = torch.compiler.disable(lambda x: x + int(x.sum()))
assert "torch._inductor" not in sys.modules
assert hidden(torch.ones(2)).tolist() == [3.0, 3.0]
from torch._dynamo.utils import counters
outer = torch.compile(lambda x: hidden(x * 2) * 2, backend="eager")
assert outer(torch.ones(2)).tolist() == [12.0, 12.0]
assert counters["stats"]["unique_graphs"] == 2, counters  # before it and after it
"""

# What this process hid or denied while it imported transformers is as it was.
RESTORED = """
import gc, torch.distributed, scipy.optimize
assert gc.isenabled() and gc.get_freeze_count() > 100_000
assert torch.distributed.is_available()
"""


# What is left out is no part of any model that can be asked for.
CLASSES = """
from transformers import AutoModelForCausalLM
classes = AutoModelForCausalLM._model_mapping
assert len([classes[config] for config in classes.keys()]) > 100
assert type(sys.modules["torch._dynamo"]) is not types.ModuleType
"""


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_imports_neither_compiler_nor_scipy_nor_distributed_tensors() -> None:
    python(REPORT)


def test_every_causal_model_can_be_imported_without_them() -> None:
    python(REPORT + CLASSES)


def test_samples_are_those_of_a_process_that_imports_everything() -> None:
    whole = "from hydragen_tree.sample.sampler import Sampler\n" + SAMPLES
    assert python(REPORT + SAMPLES) == python(whole)


def test_the_compiler_loads_when_it_is_used_with_all_its_marks() -> None:
    python(REPORT + COMPILER)


def test_what_was_hidden_before_the_compiler_came_stays_hidden_from_it() -> None:
    python(REPORT + HIDDEN)


def test_other_packages_are_found_again_afterwards() -> None:
    python(REPORT + RESTORED)


def test_modules_that_are_loaded_already_stay_as_they_are() -> None:
    python(
        "import sys, types, transformers.modeling_utils as before\n"
        "from hydragen_tree.imports import spare_imports\n"
        "spare_imports()\n"
        "assert sys.modules['transformers.modeling_utils'] is before\n"
        "assert type(sys.modules['torch._dynamo']) is types.ModuleType\n"
    )
