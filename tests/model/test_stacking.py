"""A model taken apart, written, and loaded in part."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

from hydragen_tree.errors import InputError, ModelError
from hydragen_tree.model import explain
from hydragen_tree.model.calibration import calibrate, perplexity, text_rows
from hydragen_tree.model.fingerprint import fingerprint, stored_bytes
from hydragen_tree.model.loading import find_model, load_tokenizer, load_weights
from hydragen_tree.model.stack_linear import StackLinear
from hydragen_tree.model.stacking import Ranked, stack_model, write_model
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

TEXT = "def add(a, b):\n    return a + b\n\n\ndef main():\n    print(add(int(input()), 1))\n" * 4


@pytest.fixture(scope="module")
def rows(random_model: Path) -> Tensor:
    source = find_model(str(random_model), device="cpu")
    return text_rows(load_tokenizer(source), TEXT, 64, 3)


@pytest.fixture(scope="module")
def ranked(random_model: Path, rows: Tensor) -> list[Ranked]:
    return stack_model(load_weights(find_model(str(random_model), device="cpu")), rows, blocks=5)


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, random_model: Path, ranked: list[Ranked]
) -> Path:
    folder = tmp_path_factory.mktemp("stack")
    source = find_model(str(random_model), device="cpu")
    model = load_weights(source)
    write_model(folder, model, load_tokenizer(source), ranked, torch.float32)
    return folder


def loaded(stack: Path, memory: int | None = None) -> PreTrainedModel:
    return load_weights(find_model(str(stack), device="cpu", weights_memory=memory))


def test_sensitivity_is_of_inputs_and_gradients(random_model: Path, rows: Tensor) -> None:
    model = load_weights(find_model(str(random_model), device="cpu"))
    layer = model.model.layers[1].mlp.down_proj
    found = calibrate(model, {"one": layer}, rows)["one"]
    seen: list[Tensor] = []
    layer.weight.requires_grad_()
    inputs, outputs = torch.zeros(layer.in_features), torch.zeros(layer.out_features)
    with layer.register_forward_hook(lambda _, given, out: seen.extend((given[0], out))):
        for row in rows:
            logits = model(input_ids=row[None], use_cache=False).logits[0]
            loss = functional.cross_entropy(logits[:-1], row[1:], reduction="sum")
            given, out = seen[-2:]
            inputs += given[0].square().sum(0).detach()
            outputs += torch.autograd.grad(loss, out)[0][0].square().sum(0)
    torch.testing.assert_close(found.inputs, inputs / rows.numel())
    torch.testing.assert_close(found.outputs, outputs / rows.numel())


def test_short_text_is_refused(random_model: Path) -> None:
    tokenizer = load_tokenizer(find_model(str(random_model), device="cpu"))
    with pytest.raises(InputError, match="at least 64 tokens, got 5"):
        text_rows(tokenizer, "short", 64, 3)


def test_the_order_serves_all_layers_first(ranked: list[Ranked], random_model: Path) -> None:
    model = load_weights(find_model(str(random_model), device="cpu"))
    layers = {name for name, one in model.model.named_modules() if isinstance(one, nn.Linear)}
    names = [one.layer.removeprefix("model.") for one in ranked]
    assert set(names[: len(layers)]) == layers
    assert all(names.count(name) == 5 for name in layers)
    for name in layers:  # within a layer as they were taken off: each takes off less
        gains = [one.gain for one in ranked if one.layer == f"model.{name}"]
        assert gains == sorted(gains, reverse=True)
    worth = [one.gain / one.block.n_bytes for one in ranked[len(layers) :]]
    assert worth == sorted(worth, reverse=True)


def test_all_of_it_is_nearly_the_model(random_model: Path, stack: Path, rows: Tensor) -> None:
    whole = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32)
    exact = perplexity(whole, rows)
    source = find_model(str(stack), device="cpu")
    assert source.stack is not None
    apart = [
        abs(perplexity(loaded(stack, memory), rows) / exact - 1)
        for memory in (source.stack.least_bytes, None)
    ]
    assert apart[1] < 0.1
    assert apart[1] < apart[0] / 4


def test_as_many_are_loaded_as_fit(stack: Path) -> None:
    every = find_model(str(stack), device="cpu").stack
    assert every is not None
    assert every.blocks == every.of == 14 * 5
    for memory in range(every.least_bytes, every.n_bytes, 997):
        source = find_model(str(stack), device="cpu", weights_memory=memory)
        assert source.stack is not None
        assert 14 <= source.stack.blocks < every.of
        assert memory - 2000 < source.stack.n_bytes <= memory
    model = load_weights(source)
    layers = [layer for layer in model.modules() if isinstance(layer, StackLinear)]
    assert sum(len(layer.signs) for layer in layers) == source.stack.blocks
    assert sum(x.nbytes for x in model.parameters()) == source.stack.n_bytes == stored_bytes(source)
    part = f"{source.stack.blocks} of 70 blocks"
    assert fingerprint(source)["weights"] == part
    said = dict(explain.explain(source, "auto", explain.CPU))
    assert part in said["device"]
    assert part in said["weights"]
    half = find_model(str(stack), device="cpu", dtype="bfloat16").stack
    assert half is not None
    assert half.n_bytes < every.n_bytes  # what is no block takes half


def test_samples_are_those_of_the_sum(random_model: Path, stack: Path, tmp_path: Path) -> None:
    """Drawn by rows that fork, from packed blocks, as from the matrices that they stand for."""
    dense = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32)
    for name, layer in loaded(stack).named_modules():
        if isinstance(layer, StackLinear):
            dense.get_submodule(name).weight.data = layer.weight(torch.float32)
    dense.save_pretrained(tmp_path)
    load_tokenizer(find_model(str(random_model), device="cpu")).save_pretrained(tmp_path)
    settings = SamplingSettings(max_tokens=12)
    ours, expected = (
        {
            (one.task_id, one.sample_index): one.token_ids
            for one in Sampler.from_pretrained(str(path), device="cpu").sample(
                ["def f", "def g"], 8, settings
            )
        }
        for path in (stack, tmp_path)
    )
    assert ours == expected


def test_what_cannot_be_loaded_is_refused(stack: Path, random_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="and the first block of each layer"):
        find_model(str(stack), device="cpu", weights_memory=1000)
    with pytest.raises(InputError, match="is no stack"):
        find_model(str(random_model), device="cpu", weights_memory=1 << 30)
    with pytest.raises(InputError, match="is a stack; use auto"):
        find_model(str(stack), device="cpu", weights="fp8")
    (tmp_path / "config.json").write_bytes((stack / "config.json").read_bytes())
    with pytest.raises(ModelError, match="read from a directory"):
        find_model(str(tmp_path), device="cpu")
    (tmp_path / "model.safetensors").write_bytes((random_model / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="has no blocks"):
        find_model(str(tmp_path), device="cpu")
