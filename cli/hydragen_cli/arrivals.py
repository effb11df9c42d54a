"""Prompts that come while samples are drawn, as a run takes them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hydragen_cli.inputs import Inputs
from hydragen_tree.settings import SamplingSettings

if TYPE_CHECKING:
    from hydragen_tree.prompt.prompts import Prompt
    from hydragen_tree.sample.sampler import Sampler


class Arrivals:
    """Gives a run the prompts that have come since it began.

    Args:
        inputs: where they come from.
        sampler: draws them.
        settings: how to sample.
        n: samples a prompt.
        announce: told of new prompts before any of them is drawn, and of their inputs; it may
            refuse them.
    """

    def __init__(
        self,
        inputs: Inputs,
        sampler: "Sampler",
        settings: SamplingSettings,
        n: int,
        announce: "Callable[[list[Prompt], Inputs], None]",
    ) -> None:
        self._inputs = inputs
        self._sampler, self._settings, self._n = sampler, settings, n
        self._announce = announce

    def take(self, wait: bool) -> "list[Prompt] | None":
        """See `hydragen_tree.sample.joining.Late`.

        Raises:
            InputError: a line is bad, or is for another run; all before it have been given.
        """
        later = self._inputs.next(wait)
        if later is None or not later.lines:
            return None if later is None else []
        built = later.prompts(self._sampler.tokenizer, self._settings.seed)
        self._sampler.check(built, self._settings, self._n)
        self._announce(built, later)
        return built
