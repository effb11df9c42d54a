"""The arithmetic of the GPU's benchmarks; test_bench_kernels.py runs them."""

import pytest

pytest.importorskip("triton")

from hydragen_bench import decode, tree
from hydragen_bench.timing import bench_dtype, median_us
from hydragen_tree.errors import CapacityError


def test_waves_are_even_and_few() -> None:
    assert tree.waves(1536, 253) == 220  # seven waves, the last one with 216
    assert tree.waves(1536, 2000) == 1536
    assert tree.waves(5, 1) == 1
    with pytest.raises(CapacityError, match="one sample"):
        tree.waves(5, 0)


@pytest.mark.parametrize("tokens", [60_000, 120_000, 240_000])
def test_rows_fit(tokens: int) -> None:
    """Both batches fit with grown tails and all that is shared, and the tree's has more rows."""
    work = tree.Work(120)
    alone, together = tree.rows_that_fit(work, tokens)
    assert alone < together
    pages = tokens // 64
    assert 38 + alone * (14 + 1) <= pages
    problems_in_a_wave = -(-together // 128) + 1
    assert 38 + problems_in_a_wave * 6 + together * (8 + 1) <= pages


def test_a_row_without_forks_and_vllm() -> None:
    speeds = 6400.0, 8000.0, 7100.0, 6700.0, 7000.0
    row = decode.Row(32, 1024, 64, 0.1, 0.0, None, 5.0, 4.0, *speeds, 32, 3200.0)
    expected = "32 1024 64 0.10 0.00 - 5.00 4.00 6400 8000 80% 90% 96% 7000 91% 3200 32 2.0 - -"
    assert " ".join(str(row).split()) == expected


def test_without_a_gpu_the_cpu_is_timed() -> None:
    assert median_us(lambda: sum(range(1000))) > 0
    assert bench_dtype().itemsize in (2, 4)
