"""Shared test setup: no deadlines, since machines are noisy; the same examples every time."""

import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from hydragen_tree.judge import Judge, Verdict
from hydragen_tree.problem.types import Limits, Problem, Test
from tests.judge.offered import judge_at

# Tests run side by side, one a core: threads of their own would only wait for each other. Set
# before torch is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's `nohup make test &` leaves SIGINT ignored, and processes inherit that: tests that
# interrupt a process would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

if os.environ.get("TRITON_INTERPRET") == "1":
    from tests.interpreted import patch_once

    patch_once()

settings.register_profile("project", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("project")


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a small Llama of random weights and a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("random-model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab={**vocabulary, "<eos>": 256}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,  # far from uniform: forks, and ties are rare
        bos_token_id=None,
        eos_token_id=256,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture
def eager_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Layers are traced, but run as they are: a CPU's packed products have no compiled form."""
    import torch

    from hydragen_tree.model import adapter

    whole = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **_: whole(self, backend="eager", dynamic=True)
    )
    monkeypatch.setattr(adapter, "pack_projections", lambda _: 0)
    yield
    torch.compiler.reset()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Ray's module, as the driver of a cluster of this machine with two processors."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in, with caches and settings of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HYDRAGEN_")]:
        monkeypatch.delenv(name)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of crews are forked; how they start by themselves is tested without this."""
    from hydragen_tree.spread import processes
    from tests.workers import start_worker

    monkeypatch.setattr(processes, "_started", start_worker)


@pytest.fixture(scope="module", params=["bubblewrap", "unshare", "landlock", "rlimits"])
def judge_of_each_level(request: pytest.FixtureRequest) -> Iterator[Judge]:
    with judge_at(request.param) as judge:
        yield judge


@pytest.fixture
def isolated(judge_of_each_level: Judge) -> Judge:
    """A judge of each level that promises isolation."""
    if judge_of_each_level.isolation.level == "rlimits":
        pytest.skip("promised by isolating levels only")
    return judge_of_each_level


@pytest.fixture(scope="session")
def run() -> Callable[..., Verdict]:
    """Judges a program that should print 42, in half a second and 128 MiB if not told otherwise."""

    def judged(
        judge: Judge, code: str, time_s: float = 0.5, memory_mib: int = 128, output: str = "42\n"
    ) -> Verdict:
        limits = Limits(time_s=time_s, memory_mib=memory_mib, output_mib=1)
        tests = (Test(input="", output=output),)
        problem = Problem(id="hostile", statement="Print 42.", tests=tests, limits=limits)
        return judge.judge(problem, code)

    return judged


@pytest.fixture(scope="session")
def assert_well(run: Callable[..., Verdict]) -> Callable[[Judge], None]:
    """Asserts that a judge goes on as if nothing had happened."""

    def check(judge: Judge) -> None:
        verdict = run(judge, f"print(42)  # {secrets.token_hex(8)}")
        assert verdict.status == "AC", verdict

    return check
