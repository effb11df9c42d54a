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

from hydragen_kernels.layers import NormForm  # noqa: E402
from hydragen_kernels.sum_norm import SLOT_ROWS  # noqa: E402
from hydragen_tree.model.fused_layers import fuse_layers  # noqa: E402
from hydragen_tree.model.joint_layers import join_sums  # noqa: E402
from hydragen_tree.model.joint_sums import TURNS, JointSums  # noqa: E402
from hydragen_tree.model.projections import fuse_projections  # noqa: E402
from hydragen_tree.model.ranks import Ranks  # noqa: E402
from hydragen_tree.model.tensor_parallel import sum_rows  # noqa: E402


class TwoAlike(JointSums):
    """Memory of two ranks that have the same: the one of this process."""

    def __init__(self) -> None:
        memory = torch.zeros(self.n_bytes(2), dtype=torch.uint8, device=DEVICE)
        super().__init__(memory, torch.tensor([memory.data_ptr()] * 2, device=DEVICE), 0)
        self.flags = memory[-4 * SLOT_ROWS * 2 :].view(torch.int32).view(SLOT_ROWS, 2)
        self.turns: list[int] = []
        self.most_rows = 16

    def part(self, turn: int, rows: int, width: int, dtype: torch.dtype) -> Tensor | None:
        return super().part(turn, rows, width, dtype) if rows <= self.most_rows else None

    def add(
        self, turn: int, residual: Tensor, weight: Tensor, eps: float, form: NormForm
    ) -> tuple[Tensor, Tensor]:
        self.turns.append(turn)
        self.flags[:] = torch.tensor([0, 1])  # the other one has come
        return super().add(turn, residual, weight, eps, form)


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
    dtype = torch.float32 if INTERPRETED else torch.bfloat16
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
    fuse_layers(model)
    fuse_projections(model)
    expected = {n: logits(model, n) for n in (9, 40)}
    assert join_sums(model, ranks) == layers
    joint.turns.clear()
    few = logits(model, 9)
    assert joint.turns == [0, 1] * layers
    many = logits(model, 40)  # too many for the memory: sums by themselves
    assert joint.turns == [0, 1] * layers
    again = logits(model, 9)
    assert torch.equal(few, again)
    tolerance = 1e-5 if INTERPRETED else 0.03
    for found, n in ((few, 9), (many, 40)):
        assert (found - expected[n]).norm() < tolerance * expected[n].norm()
    ranks.joint = None
    assert (logits(model, 9) - expected[9]).norm() < tolerance * expected[9].norm()


def test_memory_holds_what_it_says() -> None:
    joint = TwoAlike()
    assert joint.part(0, 17, 8, torch.float32) is None
    assert joint.part(0, 4, 3, torch.float16) is None  # not read 16 bytes at a time
    first, second = (joint.part(turn, 4, 8, torch.float16) for turn in range(TURNS))
    assert first is not None
    assert second is not None
    assert joint.holds(0, first[None])
    assert joint.holds(1, second)
    assert not joint.holds(0, second)
    assert not joint.holds(0, first.clone())
