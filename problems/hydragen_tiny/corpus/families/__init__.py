"""All families, and those that the training corpus never shows."""

from hydragen_tiny.corpus.families.conditions import ASKED
from hydragen_tiny.corpus.families.dynamic import DYNAMIC
from hydragen_tiny.corpus.families.graphs import GRAPHS
from hydragen_tiny.corpus.families.jobs import QUEUES
from hydragen_tiny.corpus.families.lines import LINES
from hydragen_tiny.corpus.families.matrices import MATRICES
from hydragen_tiny.corpus.families.numbers import NUMBERS
from hydragen_tiny.corpus.families.pairs import PAIRS
from hydragen_tiny.corpus.families.questions import QUESTIONS
from hydragen_tiny.corpus.families.reductions import REDUCTIONS
from hydragen_tiny.corpus.families.regions import REGIONS
from hydragen_tiny.corpus.families.searches import SEARCHED
from hydragen_tiny.corpus.families.sequences import SEQUENCES
from hydragen_tiny.corpus.families.strings import STRINGS
from hydragen_tiny.corpus.families.tallies import TALLIES
from hydragen_tiny.corpus.families.words import WORDS
from hydragen_tiny.corpus.families.worlds import WORLDS

FAMILIES = (
    *REDUCTIONS,
    *QUESTIONS,
    *SEQUENCES,
    *DYNAMIC,
    *NUMBERS,
    *STRINGS,
    *WORDS,
    *PAIRS,
    *MATRICES,
    *GRAPHS,
    *WORLDS,
    *ASKED,
    *TALLIES,
    *SEARCHED,
    *QUEUES,
    *REGIONS,
    *LINES,
)

HELD_OUT_FAMILIES = frozenset(
    {
        "worst-run",
        "argmin",
        "largest-jump",
        "has-majority",
        "count-smaller",
        "duel-wins",
        "divisor-sum",
        "capitals",
        "shortest-word",
        "sum-of-larger",
        "row-minima",
        "lonely-nodes",
        "highest-place",
        # what problems in `problems/` ask
        "count-below-mean",
        "run-zero",
        "round-few-kinds",
        "nearest-leaf",
        "areas-and-largest-of-free",
        "spaces-rjust-longest",
    }
)
"""Known to the generator and never in the training corpus: each has relatives that are."""
