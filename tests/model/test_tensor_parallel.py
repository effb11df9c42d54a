"""Models in two parts, by real processes: the logits of the whole ones; the rest is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hydragen_tree.errors import InputError, ModelError
from hydragen_tree.model.loading import find_model, load_weights
from hydragen_tree.model.peer_sums import PeerSums
from hydragen_tree.model.ranks import Ranks
from tests.model import parts_child
from tests.model.shrunken import VOCABULARY, shrunken
from tests.model.test_every_architecture import build

# Of each way to be split one: layers side by side and tied heads, biases of what is summed up, and
# norms of heads.
KINDS = ("cohere", "phi", "qwen3")


def write(kind: str, folder: Path) -> int:
    """A random model with what its logits are; returns how many weights it has."""
    config = shrunken(kind)
    model = build(config)
    model.save_pretrained(folder)
    tokens = torch.randint(0, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.save(
            (tokens, model(input_ids=tokens, use_cache=False).logits), folder / "expected.pt"
        )
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.filterwarnings("ignore")
def test_logits_of_parts_are_those_of_the_whole(tmp_path: Path) -> None:
    sizes = {kind: write(kind, tmp_path / kind) for kind in KINDS}
    command = [sys.executable, parts_child.__file__]
    rest = ["2", str(tmp_path / "meeting"), *(str(tmp_path / kind) for kind in KINDS)]
    ranks = [
        subprocess.Popen([*command, rank, *rest], stdout=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    for process in ranks:
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        told = [line.split() for line in out.splitlines()]
        assert [kind for kind, _, _ in told] == [*KINDS]
        for kind, weights, away in told:
            assert float(away) < 1e-5, kind
            assert int(weights) < 0.8 * sizes[kind], kind  # of the embedding, ranks have all


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "ranks", "options", "why"),
    [
        ("llama", 0, {}, "expected an integer >= 1"),
        ("llama", 4, {}, "num_key_value_heads of .* is 2, which 4 ranks cannot share evenly"),
        ("llama", 3, {}, "num_attention_heads of .* is 4, which 3 ranks cannot share evenly"),
        ("llama", 2, {"weights": "fp8"}, "weights in few bits are not split"),
        ("gpt2", 2, {}, "transformers has no plan by which gpt2 is split"),
        ("mixtral", 2, {}, "has layers that are not split here: moe_tp_experts"),
        ("gpt_oss", 2, {}, "gpt_oss does not split model.layers.0.self_attn.sinks"),
        ("gemma4_text", 2, {}, "layers that are not split here"),
    ],
)
def test_what_cannot_be_split_is_refused_before_weights_are_read(
    kind: str, ranks: int, options: dict[str, str], why: str, tmp_path: Path
) -> None:
    shrunken(kind).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"tensor_parallel {ranks}: .*{why}"):
        find_model(str(tmp_path), device="cpu", tensor_parallel=ranks, **options)


def test_a_part_is_not_loaded_as_if_it_were_all(random_model: Path) -> None:
    source = find_model(str(random_model), device="cpu", tensor_parallel=2)
    assert (source.shape.q_heads, source.shape.kv_heads) == (2, 1)
    with pytest.raises(InputError, match="tensor_parallel 2: a process for each part"):
        load_weights(source)


def test_tensors_under_other_names_are_refused(random_model: Path, tmp_path: Path) -> None:
    config = shrunken("llama")
    config.save_pretrained(tmp_path)
    tensors = {f"other.{name}": weight for name, weight in build(config).state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    source = find_model(str(tmp_path), device="cpu", tensor_parallel=2)
    with pytest.raises(ModelError, match="under other names"):
        load_weights(source, Ranks(0, 2))


def test_sums_go_the_way_of_the_next_larger_size() -> None:
    small, large = (lambda x: x), (lambda x: x + 1)
    sums = PeerSums({1 << 15: small, 1 << 16: small, 1 << 20: large})
    ways = {
        n_bytes: sums.way(torch.empty(n_bytes // 2, dtype=torch.bfloat16))
        for n_bytes in (16, 1 << 15, (1 << 15) + 16, 1 << 17, (1 << 19) + 16, 1 << 20, 1 << 25)
    }
    assert [*ways.values()] == [small, small, small, None, large, large, None]
    assert sums.way(torch.empty(64)) is None  # no bfloat16
    assert sums.way(torch.empty(64, 64, dtype=torch.bfloat16).T) is None
    assert sums.way(torch.empty(0, dtype=torch.bfloat16)) is None
