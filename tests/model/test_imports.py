"""What a run of the command line imports."""

import os
import subprocess
import sys

HEAVY = ("scipy.optimize", "sklearn")

REPORT = f"""
import sys
from hydragen_cli.console import prepare_libraries
prepare_libraries("tiny", quiet=True)
from hydragen_tree.sample.sampler import Sampler
loaded = [name for name in {HEAVY} if name in sys.modules]
assert not loaded, loaded
"""

SAMPLES = """
from hydragen_tree import SamplingSettings
sampler = Sampler.from_pretrained("tiny", device="cpu")
drawn = sampler.sample(["def add(a, b):"], 4, SamplingSettings(max_tokens=12, seed=5))
print([sample.completion for sample in drawn])
"""

# What this process hid or denied while it imported transformers is as it was.
RESTORED = """
import gc, torch.distributed, scipy.optimize
assert gc.isenabled()
assert torch.distributed.is_available()
"""


# What is left out is no part of any model that can be asked for.
CLASSES = """
from transformers import AutoModelForCausalLM
classes = AutoModelForCausalLM._model_mapping
assert len([classes[config] for config in classes.keys()]) > 100
"""


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_imports_neither_scipy_nor_scikit_learn() -> None:
    python(REPORT)


def test_every_causal_model_can_be_imported_without_them() -> None:
    python(REPORT + CLASSES)


def test_samples_are_those_of_a_process_that_imports_everything() -> None:
    whole = "from hydragen_tree.sample.sampler import Sampler\n" + SAMPLES
    assert python(REPORT + SAMPLES) == python(whole)


def test_other_packages_are_found_again_afterwards() -> None:
    python(REPORT + RESTORED)


def test_modules_that_are_loaded_already_stay_as_they_are() -> None:
    python(
        "import sys, transformers.modeling_utils as before\n"
        "from hydragen_tree.imports import spare_imports\n"
        "spare_imports()\n"
        "assert sys.modules['transformers.modeling_utils'] is before\n"
    )
