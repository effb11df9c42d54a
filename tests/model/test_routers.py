"""Routers in one launch give the experts and shares that transformers' own give."""

import inspect
import os
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.model.shrunken import VOCABULARY, shrunken

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [pytest.mark.filterwarnings("ignore")]  # transformers', about its own configurations
if not INTERPRETED:
    pytestmark.append(pytest.mark.gpu)
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels.routing import Routes  # noqa: E402
from hydragen_tree.model import routers  # noqa: E402
from hydragen_tree.model.routers import fuse_routers  # noqa: E402

# models by how many of their routers are replaced: one for each layer with experts, or none
KINDS = {
    "cohere2_moe": 3,
    "deepseek_v2": 2,
    "deepseek_v3": 1,
    "ernie4_5_moe": 0,
    "glm4_moe": 1,
    "gpt_oss": 2,
    "granitemoe": 2,
    "laguna": 1,
    "lara_mini": 3,
    "llama": 0,
    "minimax_m2": 2,
    "mixtral": 2,
    "nemotron_h": 1,
    "olmoe": 2,
    "phimoe": 0,
    "qwen2_moe": 2,
    "qwen3_5_moe_text": 3,
    "qwen3_moe": 2,
    "qwen3_next": 3,
}
NEWER = {"lara_mini"}  # not in every version of transformers
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_BIAS = "e_score_correction_bias"


def model_of(kind: str, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """With 24 experts, two to four a token, and weights that tell them apart."""
    torch.manual_seed(0)
    if kind in NEWER:
        pytest.importorskip(f"transformers.models.{kind}")
    own = shrunken(kind)
    experts = {name: 24 for name in _EXPERTS if hasattr(own, name)}
    config = shrunken(kind, **experts | {"pad_token_id": None} | changes)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).to(DEVICE).eval()
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if isinstance(tensor, torch.nn.Parameter) or name.endswith(_BIAS):
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model


def routers_of(model: PreTrainedModel) -> list[Any]:
    return [one for one in model.modules() if "Router" in type(one).__name__]


def given_to(router: Any, tokens: int, scale: float) -> list[Tensor]:
    """Random rows, and a bias for those that are given one."""
    experts, width = router.weight.shape
    x = scale * torch.randn(tokens, width, device=DEVICE)
    takes_bias = _BIAS in inspect.signature(router.forward).parameters
    return [x, torch.randn(experts, device=DEVICE)] if takes_bias else [x]


class Result(NamedTuple):
    """What a router returned, in whatever order its version has."""

    logits: Tensor
    shares: Tensor
    chosen: Tensor


def named(returned: tuple[Tensor, ...]) -> Result:
    (chosen,) = (one for one in returned if not one.is_floating_point())
    shares, logits = sorted((one for one in returned if one is not chosen), key=Tensor.numel)
    return Result(logits, shares, chosen)


def worst(found: Tensor, expected: Tensor) -> float:
    errors = (found.double() - expected.double()).norm(dim=-1) / expected.double().norm(dim=-1)
    return float(errors.max())


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_router_in_one_launch_is_the_same(kind: str) -> None:
    model = model_of(kind)
    tokens = torch.randint(VOCABULARY, (1, 9), device=DEVICE)
    expected_logits = model(tokens, use_cache=False).logits
    replaced = routers_of(model) if KINDS[kind] else []
    given = [given_to(router, 40, scale) for router in replaced for scale in (0.5, 1.0, 8.0)]
    expected = [router(*one) for router, one in zip(_thrice(replaced), given, strict=True)]
    assert fuse_routers(model) == KINDS[kind] == len(replaced)
    for router, one, own in zip(_thrice(replaced), given, expected, strict=True):
        logits, shares, chosen = named(router(*one))
        own_logits, own_shares, own_chosen = named(own)
        assert torch.equal(logits, own_logits)
        assert shares.dtype == own_shares.dtype
        places, own_places = chosen.argsort(-1), own_chosen.argsort(-1)
        assert torch.equal(chosen.gather(1, places), own_chosen.gather(1, own_places))
        assert worst(shares.gather(1, places), own_shares.gather(1, own_places)) < 1e-6
    assert worst(model(tokens, use_cache=False).logits, expected_logits) < 1e-5


def _thrice(all_routers: list[Any]) -> list[Any]:
    return [router for router in all_routers for _ in range(3)]


@pytest.mark.parametrize("kind", ["granitemoe", "gpt_oss", "laguna", "lara_mini", "qwen3_moe"])
@torch.inference_mode()
def test_weights_of_16_bits(kind: str) -> None:
    """Products are widened where the router's are, and its weights once if they are, too."""
    dtype = torch.float16 if INTERPRETED else torch.bfloat16
    model = model_of(kind, dtype)
    router = routers_of(model)[-1]
    x = torch.randn(40, router.weight.shape[1], device=DEVICE).to(dtype)
    logits, shares, chosen = named(router(x))
    assert fuse_routers(model) == KINDS[kind]
    found_logits, found_shares, found_chosen = named(router(x))
    assert torch.equal(found_logits, logits)
    assert found_logits.dtype == logits.dtype
    assert found_shares.dtype == shares.dtype
    # of equal logits torch may take any expert
    assert worst(found_shares.sort(-1).values, shares.sort(-1).values) < torch.finfo(dtype).eps
    taken = [
        one.gather(1, places).sort(-1).values
        for one, places in ((logits, chosen), (logits, found_chosen))
    ]
    assert torch.equal(*taken)
    assert (router.weight.dtype == torch.float32) == (kind == "lara_mini")


@pytest.mark.parametrize(("kind", "is_flat"), [("qwen3_moe", True), ("gpt_oss", False)])
@torch.inference_mode()
def test_a_batch_is_flattened_where_the_router_does(kind: str, is_flat: bool) -> None:
    model = model_of(kind)
    router = routers_of(model)[0]
    x = torch.randn(1, 9, router.weight.shape[1], device=DEVICE)
    expected = router(x)
    assert fuse_routers(model) == KINDS[kind]
    found = router(x)
    assert [one.shape for one in found] == [one.shape for one in expected]
    assert (found[2].ndim == 2) == is_flat
    assert torch.equal(found[2], expected[2])


@torch.inference_mode()
def test_what_is_returned_keeps_its_order() -> None:
    model = model_of("qwen3_moe")
    router = routers_of(model)[0]

    class TurnedRouter(type(router)):  # type: ignore[misc]
        def forward(self, hidden_states: Tensor) -> Any:
            return super().forward(hidden_states)[::-1]

    router.__class__ = TurnedRouter
    x = torch.randn(40, router.weight.shape[1], device=DEVICE)
    chosen, shares, logits = router(x)
    assert fuse_routers(model) == 2
    found = router(x)
    assert torch.equal(found[0], chosen)
    assert worst(found[1], shares) < 1e-6
    assert torch.equal(found[2], logits)


@torch.inference_mode()
def test_experts_of_the_best_groups_stay_with_the_model() -> None:
    assert fuse_routers(model_of("deepseek_v3", n_group=4, topk_group=4)) == 1  # all groups
    model = model_of("deepseek_v3", n_group=4, topk_group=2)
    assert fuse_routers(model) == 0
    assert all("forward" not in vars(router) for router in routers_of(model))


@pytest.mark.parametrize("what", ["shares", "chosen", "clamped"])
@torch.inference_mode()
def test_a_router_with_other_arithmetic_stays(what: str) -> None:
    model = model_of("mixtral")
    router = routers_of(model)[0]

    class OddRouter(type(router)):  # type: ignore[misc]
        def forward(self, hidden_states: Tensor) -> Any:
            if what == "clamped":  # which ordinary numbers do not show
                hidden_states = hidden_states.clamp(-6.0, 6.0)
            logits, shares, chosen = super().forward(hidden_states)
            if what == "shares":
                shares = 1.01 * shares
            return logits, shares, chosen.flip(-1) if what == "chosen" else chosen

    router.__class__ = OddRouter
    assert fuse_routers(model) == 1
    assert "forward" not in vars(router)


@torch.inference_mode()
def test_a_kernel_that_gives_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it lost a token's last expert."""
    model = model_of("qwen3_moe")
    route = routers.route

    def wrong(*given: Any, **named: Any) -> Routes:
        chosen, shares = route(*given, **named)
        return Routes(chosen, shares.index_fill(1, torch.tensor([1], device=DEVICE), 0.0))

    monkeypatch.setattr(routers, "route", wrong)
    assert fuse_routers(model) == 0
    monkeypatch.undo()
    assert fuse_routers(model) == 2
