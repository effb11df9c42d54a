"""Layers whose sums go with what follows them give what their own code gives."""

import os
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.model.shrunken import VOCABULARY, shrunken

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels.layer_forms import NormForm  # noqa: E402
from hydragen_kernels.sum_norm import EMPTY  # noqa: E402
from hydragen_tree.model import adapter  # noqa: E402
from hydragen_tree.model.fused_layers import fuse_layers  # noqa: E402
from hydragen_tree.model.joint_layers import _Forward, join_layers, part_layers  # noqa: E402
from hydragen_tree.model.joint_sums import TURNS, JointSums  # noqa: E402
from hydragen_tree.model.layer_kernels import triton_kernels  # noqa: E402
from hydragen_tree.model.projections import fuse_projections  # noqa: E402
from hydragen_tree.model.ranks import ALONE, Ranks  # noqa: E402
from hydragen_tree.model.tensor_parallel import sum_rows  # noqa: E402


class TwoAlike(JointSums):
    """Of two ranks that have the same: what one sends comes into its own inbox."""

    def __init__(self) -> None:
        self.memory = torch.zeros(self.numbers(2), dtype=torch.int16, device=DEVICE)
        super().__init__(self.memory, [self.memory.data_ptr()] * 2, 0)
        self.turns: list[int] = []
        self.most_rows = 16

    def takes(self, rows: int, width: int, dtype: torch.dtype) -> bool:
        return rows <= self.most_rows and super().takes(rows, width, dtype)

    def add(
        self,
        turn: int,
        part: Tensor,
        residual: Tensor,
        weight: Tensor,
        eps: float,
        form: NormForm,
    ) -> tuple[Tensor, Tensor]:
        self.turns.append(turn)
        return super().add(turn, part, residual, weight, eps, form)


@dataclass(slots=True)
class BothAlike(Ranks):
    """Of two ranks that have the same."""

    def sum_up(self, x: Tensor) -> Tensor:
        return x + x

    def least(self, value: int) -> int:
        return value


def part_of(kind: str, **options: float) -> PreTrainedModel:
    torch.manual_seed(0)
    config = shrunken(kind, num_hidden_layers=2, **options)
    dtype = torch.float16 if INTERPRETED else torch.bfloat16
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(DEVICE).eval()


def logits(model: nn.Module, n_tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(n_tokens)
    tokens = torch.randint(0, VOCABULARY, (1, n_tokens), generator=generator)
    with torch.inference_mode():
        found: Tensor = model(input_ids=tokens.to(DEVICE), use_cache=False).logits
    return found.double()


@pytest.mark.parametrize(
    ("kind", "options", "layers"),
    [
        ("llama", {}, 2),
        ("qwen3", {}, 2),
        ("granite", {"residual_multiplier": 0.5}, 0),  # of what is added
        ("olmo2", {}, 0),  # norms stand before the addition
    ],
)
def test_joined_layers(kind: str, options: dict[str, float], layers: int) -> None:
    model, joint = part_of(kind, **options), TwoAlike()
    ranks = BothAlike(0, 2, "")
    ranks.joint = joint
    sum_rows(model, ranks)
    fuse_layers(model, triton_kernels())
    fuse_projections(model)
    expected = {n: logits(model, n) for n in (9, 40)}
    assert join_layers(model, ranks) == layers
    joint.turns.clear()
    few = logits(model, 9)
    assert joint.turns == [0, 1] * layers
    many = logits(model, 40)  # too many for the memory: sums by themselves
    assert joint.turns == [0, 1] * layers
    assert (joint.memory == EMPTY.value).all()
    again = logits(model, 9)
    assert torch.equal(few, again)
    tolerance = 0.01 if INTERPRETED else 0.03
    for found, n in ((few, 9), (many, 40)):
        assert (found - expected[n]).norm() < tolerance * expected[n].norm()
    ranks.joint = None
    assert (logits(model, 9) - expected[9]).norm() < tolerance * expected[9].norm()


@pytest.mark.parametrize(
    ("kind", "options", "layers"),
    [
        *((kind, {}, 2) for kind in ("llama", "qwen3", "qwen3_moe", "gpt_oss", "deepseek_v2")),
        ("granite", {"residual_multiplier": 0.5}, 0),  # of what is added
        *((kind, {}, 0) for kind in ("olmo2", "gemma2", "starcoder2")),  # other norms
    ],
)
def test_layers_that_add_and_norm_at_once(
    kind: str, options: dict[str, float], layers: int
) -> None:
    model = part_of(kind, **options)
    fuse_layers(model, triton_kernels())
    fuse_projections(model)
    own = logits(model, 9)
    assert join_layers(model, ALONE) == layers
    for _ in range(2):
        assert torch.equal(logits(model, 9), own)
    joined = [one for one in model.modules() if "forward" in vars(one)]
    assert len(joined) == layers
    part_layers(model)
    assert not [one for one in model.modules() if "forward" in vars(one)]
    assert torch.equal(logits(model, 9), own)


@pytest.mark.parametrize("kind", ["llama", "phi", "lfm2"])  # the last two have no `norm`
def test_layers_that_are_compiled_are_their_own_again(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(adapter, "compile_layers", compiled.append)
    config = shrunken(kind)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(DEVICE)
    adapted = adapter.TreeModel(model)
    if INTERPRETED:
        adapter._fuse(model, False, ALONE)
        adapted.is_fused = True
    adapted.compile()
    assert compiled == [model]
    assert not [
        one for one in model.get_decoder().layers if isinstance(vars(one).get("forward"), _Forward)
    ]


def test_room_is_for_whole_parts_of_16_bits() -> None:
    joint = JointSums(torch.zeros(JointSums.numbers(2), dtype=torch.int16), [0] * 2, 1)
    assert joint.takes(1024, 8192, torch.bfloat16)
    assert joint.takes(1, 8, torch.float16)
    assert not joint.takes(1025, 8192, torch.bfloat16)
    assert not joint.takes(0, 8, torch.bfloat16)
    assert not joint.takes(4, 8, torch.float32)
    assert not joint.takes(4, 12, torch.float16)  # not read 16 bytes at a time
    many = JointSums(torch.zeros(JointSums.numbers(4), dtype=torch.int16), [0] * 4, 1)
    assert many.takes(32, 8192, torch.bfloat16)
    assert not many.takes(33, 8192, torch.bfloat16)
    assert JointSums.numbers(4) * 2 == TURNS * 3 * 32 * 8192 * 2
