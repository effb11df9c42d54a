"""Forms of norms, gates, rotations and routers: what kernels are told, on a GPU and on a CPU."""

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


class Rotation(IntEnum):
    """Which numbers of a head are rotated, by which angles; x[i] with x[i + half of them]."""

    WHOLE = 0  # all, an angle for each of them
    LEADING = 1  # as many as there are angles, from the first on: GLM, Qwen3-Next
    TWICE = 2  # all, by half as many angles: gpt-oss


class Scores(IntEnum):
    """What a router makes of an expert's logit."""

    SOFTMAX = 0
    SIGMOID = 1
