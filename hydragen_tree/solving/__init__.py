"""Samples drawn and judged at the same time, kept in one folder, and gone on with after any end.

solving.py       one run: its files, its sampler and its judge
rounds.py        which samples are drawn next, as verdicts ask for them
following.py     the judge, in a thread of its own, behind a samples file that grows
board.py         what became of every problem so far
folder.py        where the files of a run lie
savings.py       what was not drawn since verdicts had ended a problem
gathering.py     problems of any kind, imported into the folder where need be
"""

from hydragen_tree.solving.folder import RunFolder
from hydragen_tree.solving.solving import Solving, run_and_judge

__all__ = ["RunFolder", "Solving", "run_and_judge"]
