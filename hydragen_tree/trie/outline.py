"""What a run would share: its trie, what was folded, and the bytes that saves. Needs no weights."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CostModel
from hydragen_tree.trie.folding import Fold, fold
from hydragen_tree.trie.trie import Trie


@dataclass(frozen=True, slots=True)
class Savings:
    """Figures of one full batch, spread evenly over the leaves.

    Tails are left out: no two rows share them either way.

    Attributes:
        tokens: prompt tokens whose keys and values are held.
        tokens_unshared: the same if every row held its own.
        kv_bytes: their keys and values.
        kv_bytes_unshared: the same if every row held its own.
        step_bytes: bytes that attention moves in a decode step: each key and value read once, and
            a partial written and read for each row and segment above it.
        step_bytes_unshared: every row reads all of its own keys and values.
    """

    tokens: int
    tokens_unshared: int
    kv_bytes: int
    kv_bytes_unshared: int
    step_bytes: int
    step_bytes_unshared: int


@dataclass(frozen=True, eq=False, slots=True)
class Outline:
    """The shape of a run.

    Attributes:
        prompts: all prompts.
        exact: their radix tree.
        trie: the tree that is run, after folding.
        folds: what was folded, and why.
        shape: sizes of the model's keys and values.
        n: samples a task.
        rows: rows of a full batch.
        rows_below: `[segments]` int64, rows below each segment of `trie` in a full batch.
        savings: what the tree saves.
    """

    prompts: Sequence[Prompt]
    exact: Trie
    trie: Trie
    folds: Sequence[Fold]
    shape: KVShape
    n: int
    rows: int
    rows_below: NDArray[np.int64]
    savings: Savings

    @classmethod
    def draw(
        cls,
        prompts: Sequence[Prompt],
        n: int,
        shape: KVShape,
        cost: CostModel,
        max_rows: int,
        key_group: int = 1,
        token_ids: Sequence[Int32] | None = None,
    ) -> "Outline":
        """Builds and folds the trie as a run of `n` samples a task would.

        Args:
            prompts: all prompts, at least one.
            n: samples a task.
            shape: sizes of the model's keys and values.
            cost: the device's constants.
            max_rows: rows of the batch at the most.
            key_group: tokens that stay together, see `Backend.key_group`.
            token_ids: of each prompt, if the trie is of others than its own.
        """
        if token_ids is None:
            token_ids = [prompt.token_ids for prompt in prompts]
        exact = Trie.build(token_ids, key_group)
        rows = min(n * len({prompt.task_id for prompt in prompts}), max_rows)
        trie, folds = fold(exact, shape, cost, rows / len(exact.leaf_segments))
        below = _rows_below(trie, rows)
        return cls(prompts, exact, trie, folds, shape, n, rows, below, _savings(trie, shape, below))

    def tail_bytes(self, max_tokens: int) -> int:
        """Keys and values of a full batch's tails when all have grown to `max_tokens`."""
        return self.rows * max_tokens * self.shape.tail_token_bytes

    def record(self) -> dict[str, Any]:
        """The outline as plain data, for JSON."""
        tasks: dict[int, list[dict[str, Any]]] = {}
        for prompt, leaf in zip(self.prompts, self.trie.prompt_leaves.tolist(), strict=True):
            named = {"task_id": prompt.task_id, "variant": prompt.variant}
            tasks.setdefault(int(self.trie.leaf_segments[leaf]), []).append(named)
        return {
            "prompts": len(self.prompts),
            "prompt_tokens": self.exact.n_prompt_tokens,
            "distinct_tokens": self.exact.n_tokens,
            "leaves": len(self.exact.leaf_segments),
            "samples_per_task": self.n,
            "rows": self.rows,
            "token_bytes": self.shape.token_bytes,
            "tail_token_bytes": self.shape.tail_token_bytes,
            "state_bytes": self.shape.state_bytes,
            "savings": asdict(self.savings),
            "folded": [asdict(fold) for fold in self.folds],
            "segments": [
                {
                    "index": segment.index,
                    "parent": segment.parent,
                    "depth": segment.depth,
                    "start": segment.start,
                    "tokens": int(segment.tokens.size),
                    "kv_bytes": int(self.shape.held_bytes(segment.tokens.size)),
                    "leaves": len(segment.leaves),
                    "rows": int(self.rows_below[segment.index]),
                    "prompts": tasks.get(segment.index, []),
                }
                for segment in self.trie
            ],
        }


def _rows_below(trie: Trie, rows: int) -> NDArray[np.int64]:
    """Spreads a batch over the leaves; fewer rows than leaves go to the first ones."""
    leaves = len(trie.leaf_segments)
    base, extra = divmod(rows, leaves)
    until = np.concatenate([[0], np.cumsum(base + (np.arange(leaves) < extra))])
    return np.array([until[s.leaves.stop] - until[s.leaves.start] for s in trie])


def _savings(trie: Trie, shape: KVShape, below: NDArray[np.int64]) -> Savings:
    sizes = np.array([segment.tokens.size for segment in trie])
    ends = np.array([segment.start + segment.tokens.size for segment in trie])
    own = below.copy()  # rows that hang from each segment itself
    for segment in trie:
        if segment.parent >= 0:
            own[segment.parent] -= below[segment.index]
    held, alone = (int(shape.held_bytes(of).sum()) for of in (sizes[below > 0], ends.repeat(own)))
    partials = int(below.sum()) * shape.layers * shape.merge_bytes
    return Savings(
        tokens=int(sizes[below > 0].sum()),
        tokens_unshared=int((sizes * below).sum()),
        kv_bytes=held,
        kv_bytes_unshared=alone,
        step_bytes=held + partials,
        step_bytes_unshared=alone,
    )
