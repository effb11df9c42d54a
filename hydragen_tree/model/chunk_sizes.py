"""How prompts beyond a model's context are cut, where they are condensed (`condensing`)."""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from hydragen_tree.errors import InputError, ModelError, Setting
from hydragen_tree.model.support import keeps_states, layer_windows

HOMER = "homer"
_CHOICES = ("refuse", HOMER)
_PREFIX_SHARE, _SUFFIX_SHARE = 32, 8  # of a chunk: one 32nd of its tokens, and one 8th


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """How a long prompt is cut.

    Attributes:
        chunk: tokens of a chunk with its affixes, and of the cache that comes out.
        prefix: of the prompt's beginning, in every chunk.
        suffix: of its end, in every chunk.
    """

    chunk: int
    prefix: int
    suffix: int

    @classmethod
    def of(cls, context: int) -> "ChunkSizes":
        """For a model's context: a chunk is half of it."""
        chunk = context // 2
        return cls(chunk, chunk // _PREFIX_SHARE, chunk // _SUFFIX_SHARE)

    @property
    def middle(self) -> int:
        """Tokens of a chunk between its affixes."""
        return self.chunk - self.prefix - self.suffix

    def levels(self, tokens: int) -> int:
        """How often the chunks of a prompt are merged two by two."""
        return (-(-(tokens - self.prefix - self.suffix) // self.middle) - 1).bit_length()

    def most(self, layers: int) -> int:
        """Tokens of the longest prompt: there is a layer before the first merge and behind each."""
        return (self.middle << (layers - 1)) + self.prefix + self.suffix


def refuse_to_condense(
    given: str, model: str, config: PreTrainedConfig, ranks: int, ordered: bool
) -> None:
    """Refuses models whose long prompts are to be condensed and cannot be.

    Args:
        given: `refuse` or `homer`.
        model: as the user gave it.
        config: of the text model.
        ranks: devices that have the model together.
        ordered: whether samples are to be the same bits in any batch.

    Raises:
        InputError: neither of the two, or together with what it is not made for.
        ModelError: layers that do not see all earlier tokens, or no context that is known.
    """
    if given not in _CHOICES:
        raise InputError(f"expected {' or '.join(_CHOICES)}", setting="long_prompt", value=given)
    if given != HOMER:
        return
    for is_asked, setting in ((ranks > 1, "tensor_parallel"), (ordered, "batch_invariant")):
        if is_asked:
            raise InputError("not with ", Setting(setting), setting="long_prompt", value=given)
    if keeps_states(config) or any(layer_windows(config)):
        raise ModelError(
            "condenses prompts of models whose layers all see all earlier tokens, and "
            f"{config.model_type} has others",
            setting="long_prompt",
            value=given,
        )
    context = int(getattr(config, "max_position_embeddings", 0) or 0)
    if context // 2 < _PREFIX_SHARE:
        raise ModelError(
            f"{model} has a context of {context} tokens; nothing is cut below {2 * _PREFIX_SHARE}",
            setting="long_prompt",
            value=given,
        )
