"""Forms of a model's norms and gates: what kernels of layers are told, on a GPU and on a CPU."""

from enum import IntEnum


class NormForm(IntEnum):
    """What an RMS norm does with its weight, after x / rms(x) in fp32."""

    ROUNDED = 0  # rounds, then multiplies: Llama
    EXACT = 1  # multiplies in fp32, then rounds: OLMo 2
    AROUND_ONE = 2  # multiplies by 1 + weight in fp32, then rounds: Gemma


class Activation(IntEnum):
    """What a gate goes through."""

    SILU = 0
    GELU_TANH = 1
