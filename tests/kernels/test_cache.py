"""Kernels that fill the arena: append and copy. They run as `test_kernel_attention.py` does."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU, and not under the interpreter", allow_module_level=True)

from hydragen_kernels.append import append  # noqa: E402
from hydragen_kernels.copy import copy_pages, copy_tokens  # noqa: E402

# arithmetic in bf16 is garbage in the interpreter, which holds it as uint16
DTYPES = [torch.float16, torch.float32] + ([] if INTERPRETED else [torch.bfloat16])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rotary_dim", [0, 20, 64])
def test_append(dtype: torch.dtype, rotary_dim: int) -> None:
    generator = torch.Generator().manual_seed(rotary_dim)
    keys, values = torch.full((2, 3, 40, 64), torch.nan, dtype=dtype, device=DEVICE)
    k, v = torch.randn(2, 6, 3, 64, generator=generator).to(DEVICE, dtype)
    angle = torch.randn(6, rotary_dim // 2, generator=generator).repeat(1, 2).to(DEVICE)
    cos, sin = angle.cos(), angle.sin()
    slots = torch.tensor([3, 39, -1, 0, 17, 4], dtype=torch.int32, device=DEVICE)
    append(keys, values, k, v, slots, rotary=(cos, sin) if rotary_dim else None)

    turned = k.double()
    part = turned[..., :rotary_dim].clone()
    half = torch.cat([-part[..., rotary_dim // 2 :], part[..., : rotary_dim // 2]], -1)
    turned[..., :rotary_dim] = part * cos[:, None] + half * sin[:, None]
    written = [0, 1, 3, 4, 5]
    at = slots[written].long()
    torch.testing.assert_close(keys[:, at].transpose(0, 1), turned[written].to(dtype))
    assert torch.equal(values[:, at].transpose(0, 1), v[written])
    others = torch.ones(40, dtype=torch.bool, device=DEVICE)
    others[at] = False
    assert keys[:, others].isnan().all()
    assert values[:, others].isnan().all()


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("head_dim", [64, 80])
def test_copies_move_bits_in_every_layer(dtype: torch.dtype, head_dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    # heads before layers: the strides are not in the order of the dimensions
    arena = torch.randn(2, 3, 2, 80, head_dim, generator=generator).to(dtype).to(DEVICE)
    keys, values = arena.transpose(1, 2)
    order = torch.randperm(80, generator=generator).to(DEVICE)
    source, target = order[:19], order[19:38]
    expected = [x.contiguous().view(torch.uint8) for x in (keys, values)]
    for whole in expected:
        whole[:, :, target] = whole[:, :, source]
    copy_tokens(keys, values, source.int(), target.int())
    for whole, found in zip(expected, (keys, values), strict=True):
        assert torch.equal(found.contiguous().view(torch.uint8), whole)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize(("head_dim", "count"), [(64, 0), (80, 3), (16, 9)])
def test_as_many_pages_are_copied_as_the_device_says(
    dtype: torch.dtype, head_dim: int, count: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    arena = torch.randn(2, 3, 2, 80, head_dim, generator=generator).to(dtype).to(DEVICE)
    keys, values = arena.transpose(1, 2)
    order = torch.randperm(20, generator=generator).int().to(DEVICE)
    source, target = order[:9] % 10, order[9:18]  # a page may be copied twice
    source = torch.where(torch.isin(source, target), order[18], source)
    expected = [x.contiguous().view(torch.uint8).unflatten(2, (20, 4)) for x in (keys, values)]
    for whole in expected:
        whole[:, :, target[:count].long()] = whole[:, :, source[:count].long()]
    number = torch.tensor([count], device=DEVICE)
    copy_pages(keys, values, source, target, number, 4)
    for whole, found in zip(expected, (keys, values), strict=True):
        assert torch.equal(found.contiguous().view(torch.uint8), whole.flatten(2, 3))


def test_copies_refuse_what_does_not_fit() -> None:
    keys = torch.zeros(2, 3, 8, 16, device=DEVICE)
    slots = torch.arange(4, dtype=torch.int32, device=DEVICE)
    copy_tokens(keys, keys.clone(), slots[:0], slots[:0])
    with pytest.raises(ValueError, match="of one dtype"):
        copy_tokens(keys, keys.half(), slots, slots)
    with pytest.raises(ValueError, match="of one dtype"):
        copy_tokens(keys.double(), keys.double(), slots, slots)
    with pytest.raises(ValueError, match="source"):
        copy_tokens(keys, keys.clone(), slots[0], slots[:1])
    with pytest.raises(ValueError, match="target"):
        copy_tokens(keys, keys.clone(), slots, slots[:3])
    number = torch.ones(1, dtype=torch.int64, device=DEVICE)
    with pytest.raises(ValueError, match="source"):
        copy_pages(keys, keys.clone(), slots.long(), slots, number, 4)
    with pytest.raises(ValueError, match="target"):
        copy_pages(keys, keys.clone(), slots, slots[:3], number, 4)
    with pytest.raises(ValueError, match="count"):
        copy_pages(keys, keys.clone(), slots, slots, number.int(), 4)
