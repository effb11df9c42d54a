"""Prompts that come while samples are drawn: those that have come meanwhile are drawn next."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hydragen_cli.inputs import Inputs
from hydragen_tree.settings import SamplingSettings

if TYPE_CHECKING:
    from hydragen_tree.prompt.prompts import Prompt
    from hydragen_tree.sample.records import RunStats
    from hydragen_tree.sample.sampler import Sampler


class Arrivals:
    """Draws the prompts that are there, then those that have come meanwhile, to the last.

    Args:
        inputs: where they come from.
        sampler: draws them.
        settings: how to sample.
        n: samples a prompt.
        announce: told of all prompts so far, before any of the new ones is drawn, and of their
            inputs; it may refuse them.
    """

    def __init__(
        self,
        inputs: Inputs,
        sampler: "Sampler",
        settings: SamplingSettings,
        n: int,
        announce: "Callable[[list[Prompt], Inputs], None]",
    ) -> None:
        from hydragen_tree.sample.records import RunStats

        self._inputs, self._sampler, self._announce = inputs, sampler, announce
        self._settings, self._n = settings, n
        self._counted = RunStats(), sampler.stats  # of the runs so far, and of the last of them

    @property
    def stats(self) -> "RunStats":
        """Figures of all runs, live."""
        from hydragen_tree.spread.figures import one_after_another

        before, last = self._counted
        now = self._sampler.stats
        return before if now is last else one_after_another(before, now)

    def draw(self, built: "list[Prompt]", run: "Callable[[list[Prompt]], None]") -> None:
        """Draws all prompts.

        Args:
            built: those that are there.
            run: draws some.

        Raises:
            InputError: a line is bad, or is for another run; all before it have been drawn.
        """
        everything = list(built)
        while True:
            run(built)
            self._counted = self.stats, self._sampler.stats
            later = self._inputs.next()
            if later is None:
                break
            built = later.prompts(self._sampler.tokenizer, self._settings.seed)
            self._sampler.check(built, self._settings, self._n)
            everything += built
            self._announce(everything, later)
        self._sampler.stats = self.stats
