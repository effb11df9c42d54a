"""Random weights that talk like a model: sure of most tokens, open in some places, and with an end.

Logits of random weights are so flat that samples part with their first token, and nothing ends.
Only made sharper, they soon go round in circles: where the greatest logit is far above all others a
token has one successor, top-p leaves no way out, and all samples say the same for ever. So the head
changes in three ways, each found by bisection on states that the model comes to by sampling from
itself:

- tokens come in sets of eight, which share one random row of the head. A scale of all logits makes
  the model sure of the set;
- within a set the first token is the only one, or, in so many sets that a token holds as many bits
  as asked for, the others have a chance too: by a bias each, so the same in every state;
- a bias of the end token, so that a sample is as long as asked for in the mean. The end token has
  random weights like any other and only more of a chance: in most states it is out of the question,
  in some it is what comes next. So lengths are near to geometric, samples that have drawn the same
  tokens tend to end together, and top-p cuts off no more ends than it does in a real model.

Heads have no bias term. One channel is made the same in every state instead: embeddings put a
constant into it, and no layer writes to it; the head's weight for it is the bias. All of this is in
the weights, so that every engine that loads the folder ends its samples alike.
"""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hydragen_bench.configs import random_weights
from hydragen_tree.branch.drawing import filtered
from hydragen_tree.settings import SamplingSettings

END, END_TEXT = 0, "<|end|>"
TEMPERATURE, TOP_P = 0.8, 0.95  # at which samples have their mean length
_DRAWN = SamplingSettings(temperature=TEMPERATURE, top_p=TOP_P)
_INTO_STREAM = {"o_proj", "out_proj", "down_proj"}  # products that are added to a layer's input
_ROUNDS = 3  # the first on random tokens, the others on drawn ones
_WALKS, _FIRST_TOKENS, _STEPS = 32, 48, 32
_HALVINGS = 20
_MOST_BIAS = 1e4
_SET = 8  # tokens
_OPEN_BITS = 1.0  # of a choice in a set that leaves one
_MOST_BITS = 2.5  # of which token of a set it is, in the mean
_SET_SHARE = 0.25  # of the bits at least, those of which set comes next
_NEVER = -30.0
_FIGURES = "sharpened.json"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BEFORE = (" ", "", " ", "\n    ")  # what words begin with; no usual stop string comes of it


def find_folder(weights: Path, name: str, entropy_bits: float, mean_tokens: float) -> Path:
    """Where the weights of an architecture are kept."""
    return weights / f"{name}-{entropy_bits:g}-bits-{mean_tokens:g}-tokens"


def is_made(folder: Path) -> bool:
    """Whether the weights are there, all of them."""
    return (folder / _FIGURES).exists()


def read_figures(folder: Path) -> dict[str, float]:
    """What was found when the folder was made, see `sharpen`."""
    return dict(json.loads((folder / _FIGURES).read_text(encoding="utf-8")))


def make_folder(name: str, folder: Path, entropy_bits: float, mean_tokens: float) -> None:
    """Writes model and tokenizer, as any engine loads them.

    Args:
        name: of the architecture.
        folder: made here.
        entropy_bits: mean entropy of a token, before temperature and top-p.
        mean_tokens: of a sample that nothing else ends; 0: samples have no end.
    """
    model = random_weights(name)
    figures = sharpen(model, entropy_bits, mean_tokens)
    end = END if mean_tokens else None
    model.config.eos_token_id = end
    if model.generation_config is not None:
        model.generation_config.eos_token_id = end
    model.save_pretrained(folder)
    make_tokenizer(int(model.config.vocab_size)).save_pretrained(folder)
    (folder / _FIGURES).write_text(json.dumps(figures), encoding="utf-8")  # last: all is there


def make_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Made-up words, so that tokens have a text of a usual length; it cannot read."""
    words = {END_TEXT: END, **{_word(token): token for token in range(1, vocabulary)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=END_TEXT))
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_TEXT)


def _word(token: int) -> str:
    """A token as byte-level vocabularies spell it."""
    before, rest = _BEFORE[token % len(_BEFORE)], token
    letters = ""
    while rest:
        rest, letter = divmod(rest, len(_LETTERS))
        letters += _LETTERS[letter]
    return before.replace(" ", "Ġ").replace("\n", "Ċ") + letters


@torch.inference_mode()
def sharpen(model: PreTrainedModel, entropy_bits: float, mean_tokens: float) -> dict[str, float]:
    """Changes the head, and the channel that its bias needs.

    Args:
        model: random weights, with a head of its own.
        entropy_bits: see `make_folder`.
        mean_tokens: see `make_folder`.

    Returns:
        What was found: `scale`, `end_bias`, `entropy_bits`, `end_probability`, the last two as
        they are in texts that the result draws.
    """
    _make_constant_channel(model)
    head = model.get_output_embeddings().weight
    sets = (len(head) - 1) // _SET  # the end token is in none
    numbers = torch.arange(len(head), device=head.device)
    of_sets, member = (numbers - 1) % sets, (numbers - 1) // sets
    plain = head.float().clone()
    plain[1:] = plain[1 + of_sets[1:]]
    plain[:, 0] = 0.0
    set_bits = max(entropy_bits * _SET_SHARE, entropy_bits - _MOST_BITS)
    choices = _choices(member, of_sets / sets, entropy_bits - set_bits)
    head.zero_()  # the first tokens are drawn evenly
    for _ in range(_ROUNDS):
        states = _states(model)
        logits = states @ plain.T
        of_set = partial(_certainty, logits[:, 1 : 1 + sets])
        exponent = bisect(of_set, -set_bits, -8.0, 16.0)
        biases = choices / states[:, 0].mean()
        logits = logits * 2**exponent + states[:, :1] * biases
        if mean_tokens:
            ends = partial(end_probability, logits, states[:, 0])
            biases[END] = bisect(ends, 1 / mean_tokens, -_MOST_BIAS, _MOST_BIAS)
        head.copy_(plain * 2**exponent)
        head[:, 0] = biases
    logits = _states(model) @ head.float().T
    return {
        "scale": 2**exponent,
        "end_bias": float(biases[END]),
        "entropy_bits": entropy_of(logits),
        "end_probability": end_probability(logits, logits[:, 0], 0.0),
    }


def _choices(member: Tensor, place: Tensor, bits: float) -> Tensor:
    """What tokens lose, in nats, to the first of their set.

    Args:
        member: of each token, its number in its set.
        place: of its set, 0 to 1: the first ones leave a choice.
        bits: of a token in the mean.
    """
    open_bits = max(bits, _OPEN_BITS)
    steps = torch.arange(_SET, dtype=torch.float32)[None]
    step = bisect(lambda loss: -entropy_of(-loss * steps), -open_bits, 0.0, -_NEVER)
    losses = torch.where(place < bits / open_bits, step * member, -_NEVER * member)
    losses[member >= _SET] = -_NEVER
    losses[member < 0] = 0.0  # the end token
    return -losses


def _make_constant_channel(model: PreTrainedModel) -> None:
    """Channel 0 of the residual stream: ones from the embeddings, and nothing from any layer."""
    model.get_input_embeddings().weight[:, 0] = 1.0
    for name, product in model.model.layers.named_modules():
        if name.rpartition(".")[2] in _INTO_STREAM:
            product.weight[0] = 0.0
            if product.bias is not None:
                product.bias[0] = 0.0


def _states(model: PreTrainedModel) -> Tensor:
    """float32 `[states, hidden]` that the head is given, in texts drawn from the model itself."""
    generator = torch.Generator(model.device).manual_seed(0)
    size = _WALKS, _FIRST_TOKENS
    tokens = torch.randint(
        1, int(model.config.vocab_size), size, generator=generator, device=model.device
    )
    for _ in range(_STEPS):
        out = model(tokens, use_cache=False, output_hidden_states=True, logits_to_keep=1)
        weights = filtered(out.logits[:, -1], _DRAWN)
        tokens = torch.cat([tokens, torch.multinomial(weights, 1, generator=generator)], 1)
    drawn: Tensor = out.hidden_states[-1][:, _FIRST_TOKENS:]
    return drawn.float().flatten(0, 1)


def entropy_of(logits: Tensor) -> float:
    """The mean bits of a token."""
    logs = logits.log_softmax(-1)
    return float(-(logs.exp() * logs).sum(-1).mean()) / math.log(2)


def _certainty(logits: Tensor, exponent: float) -> float:
    return -entropy_of(logits * 2**exponent)


def end_probability(logits: Tensor, constant: Tensor, bias: float) -> float:
    """The mean probability of the end token with a bias.

    Args:
        logits: `[rows, tokens]` without it.
        constant: `[rows]` what it is multiplied by.
        bias: the head's weight for the constant.
    """
    logits = logits.clone()
    logits[:, END] += bias * constant
    return float(filtered(logits, _DRAWN)[:, END].mean())


def bisect(rising: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a rising function has a value; the nearer end of the interval if nowhere in it."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2
