"""Peers beside our benchmarks: stand-ins of them get what they document, and are held to it."""

import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from hydragen_tree.errors import HydragenError, InputError

pytest.importorskip("triton")

from hydragen_bench import configs, peer_flashinfer, peer_vllm, peers
from hydragen_bench.attention import SHAPES, Layer, Shape
from hydragen_bench.choose import by_sorting
from hydragen_bench.configs import Point
from hydragen_bench.peers import find_peer
from tests.bench.fake_vllm import FakeVllm

DEEP = Shape("deep", (1, 3, 7), (48, 16, 40), 4, 2, 16)


class CascadeWrapper:
    """FlashInfer's wrapper by its documentation: page tables of each level, layout NHD."""

    def __init__(self, num_levels: int, workspace: Tensor, kv_layout: str) -> None:
        assert workspace.dtype == torch.uint8
        assert kv_layout == "NHD"
        self.num_levels = num_levels

    def plan(self, *tables: Any, sm_scale: float, q_data_type: Any, kv_data_type: Any) -> None:
        *self.levels, q_heads, kv_heads, head_dim, self.page_size = tables
        assert all(len(column) == self.num_levels for column in self.levels)
        self.group, self.head_dim, self.scale = q_heads // kv_heads, head_dim, sm_scale
        assert q_data_type is kv_data_type is torch.float32

    def run(self, queries: Tensor, cache: tuple[Tensor, Tensor]) -> Tensor:
        histories: list[list[Tensor]] = [[] for _ in queries]
        for rows, starts, pages, last in zip(*self.levels, strict=True):
            assert rows[-1] == len(queries)
            for node in range(len(last)):
                own = pages[starts[node] : starts[node + 1]].long()
                slots = own[:, None] * self.page_size + torch.arange(self.page_size)
                slots = slots.flatten()[: (len(own) - 1) * self.page_size + int(last[node])]
                for row in range(int(rows[node]), int(rows[node + 1])):
                    histories[row].append(slots)
        out = torch.empty_like(queries)
        for row, parts in enumerate(histories):
            keys, values = (part.flatten(0, 1)[torch.cat(parts)] for part in cache)
            query = queries[row].view(-1, self.group, self.head_dim)
            scores = torch.einsum("hgd,nhd->hgn", query, keys) * self.scale
            value = torch.einsum("hgn,nhd->hgd", scores.softmax(-1), values)
            out[row] = value.flatten(0, 1)
        return out


def sampling_module(filters: bool) -> ModuleType:
    """`flashinfer.sampling` in torch, with or without its filters."""
    module: Any = ModuleType("flashinfer.sampling")

    def rows(matrix: Tensor, indices: Tensor | None) -> Tensor:
        return matrix if indices is None else matrix[indices.long()]

    def from_logits(logits: Tensor, indices: Tensor | None = None, **seeds: int) -> Tensor:
        assert seeds == {"seed": 0, "offset": 0}
        return by_sorting(rows(logits, indices), 1.0).int()

    def top_k_top_p(
        logits: Tensor, k: int, p: float, indices: Tensor | None = None, **seeds: int
    ) -> Tensor:
        if not filters:
            return from_logits(logits, indices, **seeds)
        return by_sorting(rows(logits, indices), 1.0, k, p).int()

    module.sampling_from_logits = from_logits
    module.top_k_top_p_sampling_from_logits = top_k_top_p
    module.softmax = lambda logits, temperature: (logits.float() / temperature).softmax(-1)
    module.top_p_sampling_from_probs = lambda probs, p, **common: top_k_top_p(
        probs.log(), 0, p, **common
    )
    return module


@pytest.fixture
def flashinfer(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = ModuleType("flashinfer")
    module.MultiLevelCascadeAttentionWrapper = CascadeWrapper
    monkeypatch.setitem(sys.modules, "flashinfer", module)
    monkeypatch.setitem(sys.modules, "flashinfer.sampling", sampling_module(filters=True))
    return module


def test_cascade_reads_what_our_kernels_read(flashinfer: Any) -> None:
    torch.manual_seed(0)
    layer = Layer(DEEP)
    assert layer.error(layer.cascade()(), rows=7) < 1e-5


def test_all_shapes_have_page_tables() -> None:
    for shape in SHAPES:
        pages = -(-shape.tokens[-1] // 64)
        table = np.arange(shape.rows * pages, dtype=np.int32).reshape(shape.rows, pages)
        lengths = np.full(shape.rows, shape.tokens[-1], np.int32)
        levels = peer_flashinfer.cascade_levels(shape.items(), table, lengths, 64)
        assert len(levels) == len(shape.nodes)
        for level, nodes, tokens in zip(levels, shape.nodes, shape.tokens, strict=True):
            assert level.rows[-1] == shape.rows
            assert len(level.last_page_tokens) == nodes
            assert len(level.pages) == level.page_starts[-1] == nodes * -(-tokens // 16)


def test_a_wrong_cascade_is_not_timed(
    flashinfer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CascadeWrapper, "run", lambda self, queries, cache: queries)
    layer = Layer(DEEP)
    assert peer_flashinfer.attempt("deep", layer.flashinfer) is None
    assert "left out of deep: AssertionError: relative error" in capsys.readouterr().out


def test_without_flashinfer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert peer_flashinfer.find_flashinfer() is None
    assert "pip install 'flashinfer-python" in capsys.readouterr().out


SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0.8},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 20, "top_p": 0.95},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_right_draws_pass(flashinfer: Any, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(12, 300) * 2.5).bfloat16()
    peer_flashinfer.check_draws(logits, settings)
    draw = peer_flashinfer.drawer(logits, torch.arange(12, dtype=torch.int32), **settings)
    assert draw is not None
    assert draw().shape == (12,)


@pytest.mark.parametrize("settings", SETTINGS[1:], ids=str)
def test_draws_outside_the_filters_are_refused(
    flashinfer: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "flashinfer.sampling", sampling_module(filters=False))
    with pytest.raises(AssertionError, match="inf standard errors"):
        peer_flashinfer.check_draws(torch.randn(12, 300), settings)


def test_draws_of_another_temperature_are_refused() -> None:
    torch.manual_seed(0)
    logits = torch.randn(8, 300) * 2.5
    warmer = torch.stack([by_sorting(logits, 1.0) for _ in range(512)], 1)
    right = torch.stack([by_sorting(logits, 0.8) for _ in range(512)], 1)
    assert abs(peer_flashinfer.deviation(logits, right, 0.8)) < 5
    assert peer_flashinfer.deviation(logits, warmer, 0.8) < -5


def test_greedy_has_no_peer() -> None:
    own = torch.zeros(1, dtype=torch.int32)
    assert peer_flashinfer.drawer(torch.zeros(1, 4), own, temperature=0.0) is None
    with pytest.raises(NotImplementedError, match="known to hang"):
        peer_flashinfer.drawer(torch.zeros(1, 1 << 16), own, temperature=1.0, top_k=5)


# -- vLLM ------------------------------------------------------------------------------------

FAKE_VLLM = """
import json, os, time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

__version__ = "9.9"
ASKED = Path(os.environ["FAKE_VLLM_LOG"])
RUNNER = "VLLM_USE_V2_MODEL_RUNNER"
clock = [0.0]
time.perf_counter = lambda: clock[0]  # stands but for what is drawn: machines may be busy

class LLM:
    def __init__(self, **options):
        model = Path(options["model"])
        config = json.loads((model / "config.json").read_text())
        has_weights = (model / "model.safetensors").exists()
        assert has_weights is (options.get("load_format") != "dummy")
        told = {**options, "architectures": config["architectures"]}
        told |= {"layers": config["num_hidden_layers"], "runner": os.environ.get(RUNNER)}
        told |= {"multicast": os.environ.get("NCCL_NVLS_ENABLE")}
        told |= {"invariant": os.environ.get("VLLM_BATCH_INVARIANT")}
        ASKED.write_text(json.dumps([told]))

    def apply_model(self, function):
        assert os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] == "1"  # or it takes no functions
        import torch
        parts = {"embed_tokens": torch.nn.Embedding(50, 64), "norm": torch.nn.LayerNorm(64)}
        parts |= {"mlp": torch.nn.Linear(64, 64)}
        model = torch.nn.ModuleDict(parts)
        for weight in model.parameters():
            torch.nn.init.constant_(weight, 1e-3)
        function(model)
        spread = {n: [p.std().item(), p.mean().item()] for n, p in model.named_parameters()}
        told, = json.loads(ASKED.read_text())
        ASKED.write_text(json.dumps([{**told, "spread": spread}]))

    def generate(self, prompts, settings, use_tqdm):
        asked = json.loads(ASKED.read_text())
        ASKED.write_text(json.dumps([*asked, {"prompts": prompts, **vars(settings)}]))
        clock[0] += settings.max_tokens / 1000
        drawn = [0] * settings.max_tokens
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=drawn)] * settings.n)]

class SamplingParams(SimpleNamespace):
    pass
"""
QUEUEING = """
class Queueing(LLM):
    def sleep(self, level):
        assert level == 0
        self.asleep = True

    def enqueue(self, prompts, settings, use_tqdm):
        assert self.asleep
        self.queued = prompts, settings

    def wake_up(self, tags):
        assert tags == ["scheduling"]
        self.asleep = False

    def wait_for_completion(self, use_tqdm):
        assert not self.asleep
        return self.generate(*self.queued, use_tqdm)

LLM = Queueing
"""


@pytest.fixture
def tiny_config(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(vocab_size=50, **sizes, **heads, bos_token_id=None, eos_token_id=None)
    monkeypatch.setitem(configs.CONFIGS, "tiny", config)


@pytest.fixture
def fake_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeVllm:
    return FakeVllm(tmp_path, FAKE_VLLM, monkeypatch)


@pytest.mark.parametrize("queues", [False, True])
def test_vllm_gets_the_same_prompts_and_samples(
    queues: bool, fake_vllm: FakeVllm, tiny_config: None
) -> None:
    if queues:  # a version that can take all samples before it begins
        fake_vllm.hold(FAKE_VLLM + QUEUEING)
    peer = find_peer("vllm-cascade", None)
    found = peer_vllm.measure("tiny", [Point(3, 20, 12), Point(5, 9, 11)], peer)
    assert (found.version, found.cascade) == ("9.9", True)
    assert sorted(found.tokens_s) == [(3, 20, 12), (5, 9, 11)]
    assert all(speed > 0 for speed in found.tokens_s.values())
    engine, *asked = json.loads(fake_vllm.log.read_text())
    assert (engine["layers"], engine["architectures"]) == (1, ["LlamaForCausalLM"])
    assert engine["enable_prefix_caching"] is True
    assert (engine["disable_cascade_attn"], engine["runner"]) == (False, "0")
    assert engine["max_num_seqs"] == 5
    assert "tensor_parallel_size" not in engine
    assert engine["cudagraph_capture_sizes"] == [3, 5]
    assert engine["max_model_len"] >= 20 + 13
    assert [(each["n"], each["max_tokens"]) for each in asked] == [
        (n, tokens) for n, new in ((3, 12), (5, 11)) for tokens in (8, 1, new + 1)
    ]
    prompt = peer_vllm.random_prompt(20, 50).token_ids.tolist()
    assert asked[0]["prompts"] == [{"prompt_token_ids": prompt}]
    assert all(each["ignore_eos"] and not each["detokenize"] for each in asked)


def test_vllm_without_cascade_is_not_asked_for_it(fake_vllm: FakeVllm, tiny_config: None) -> None:
    fake_vllm.disable_cascade_by(None)
    found = peer_vllm.measure("tiny", [Point(2, 9, 2)], find_peer("vllm-cascade", None))
    assert not found.cascade
    assert "cascade attention off" in str(found)
    engine = json.loads(fake_vllm.log.read_text())[0]
    assert "disable_cascade_attn" not in engine


def test_vllm_on_several_devices(fake_vllm: FakeVllm, tiny_config: None) -> None:
    point = Point(2, 9, 2)
    found = peer_vllm.measure("tiny", [point], find_peer("vllm", None), ranks=2)
    assert (found.cascade, [*found.tokens_s]) == (False, [point])
    engine = json.loads(fake_vllm.log.read_text())[0]
    assert engine["tensor_parallel_size"] == 2
    assert engine["multicast"] == "0"
    assert engine["compilation_config"]["pass_config"]["fuse_allreduce_rms"] is False
    assert "disable_cascade_attn" not in engine
    assert engine["runner"] is None


@pytest.mark.parametrize(("chosen", "larger"), [(None, 1), (2, 50)])
def test_vllm_draws_weights_as_ours_are(
    chosen: int | None, larger: float, fake_vllm: FakeVllm, tiny_config: None
) -> None:
    configs.CONFIGS["tiny"].num_experts_per_tok = chosen
    peer_vllm.measure("tiny", [Point(2, 9, 2)], find_peer("vllm", None))
    spread = json.loads(fake_vllm.log.read_text())[0]["spread"]
    ours = configs.random_weights("tiny")
    for name in ("embed_tokens", "mlp"):
        own = [p for n, p in ours.named_parameters() if name in n]
        assert spread[f"{name}.weight"][0] == pytest.approx(own[0].std().item(), rel=0.15)
        assert spread[f"{name}.weight"][1] == pytest.approx(0.0, abs=0.01 * larger)
    assert spread["embed_tokens.weight"][0] == pytest.approx(0.02 * larger, rel=0.1)
    assert spread["norm.weight"] == [0.0, 1.0]
    assert spread["mlp.bias"] == [0.0, pytest.approx(1e-3)]


@pytest.mark.parametrize("mode", [False, True])
def test_vllm_is_measured_in_its_own_mode(
    mode: bool, fake_vllm: FakeVllm, tiny_config: None
) -> None:
    point = Point(4, 9, 2)
    found = peer_vllm.measure("tiny", [point], find_peer("vllm", None), batch_invariant=mode)
    engine = json.loads(fake_vllm.log.read_text())[0]
    assert engine["invariant"] == ("1" if mode else None)
    assert (found.batch_invariant, "batch-invariant" in str(found)) == (mode, mode)
    assert found.step_ms(point) == pytest.approx(4e3 / found.tokens_s[point])


def test_vllm_that_fails_says_why(fake_vllm: FakeVllm, tiny_config: None) -> None:
    fake_vllm.hold("raise SystemError('no such GPU')")
    with pytest.raises(HydragenError, match=r"exit code 1(.|\n)*no such GPU"):
        peer_vllm.measure("tiny", [Point(2, 9, 2)], find_peer("vllm", None))


def test_a_cause_far_above_the_last_lines_is_said(fake_vllm: FakeVllm, tiny_config: None) -> None:
    """As of an engine in a process of its own, which is mourned at length."""
    fake_vllm.hold(
        "print('(engine) AttributeError: no topk_softmax')\n"
        "print('waiting\\n' * 40)\n"
        "raise RuntimeError('engine did not start')"
    )
    with pytest.raises(HydragenError, match=r"code 1:\n\(engine\) .*no topk(.|\n)*did not start"):
        peer_vllm.measure("tiny", [Point(2, 9, 2)], find_peer("vllm", None))


@pytest.mark.parametrize("name", list(peers.KINDS))
def test_the_child_needs_nothing_of_ours(name: str) -> None:
    """Any Python can run it: it imports the standard library and the peer."""
    script = peers.KINDS[name].script.read_text()
    check = textwrap.dedent("""
        import sys
        exec(compile(sys.stdin.read(), "child", "exec"), {"__name__": "child"})
        assert not {"torch", "hydragen_tree"} & set(sys.modules)
    """)
    subprocess.run([sys.executable, "-c", check], input=script, text=True, check=True)


@pytest.mark.parametrize("name", list(peers.KINDS))
@pytest.mark.parametrize("python", [None, "/no/such/python"])
def test_a_peer_that_is_missing_is_bad_input(
    name: str, python: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = peers.KINDS[name]._replace(package="no_such_package")
    monkeypatch.setitem(peers.KINDS, name, missing)
    remedy = f"pip install {missing.distribution}" if python is None else "peer_python"
    with pytest.raises(InputError, match=remedy):
        find_peer(name, python)
