"""A rank that loads its parts of models, and compares its logits with those of the whole ones.

python parts_child.py RANK SIZE MEETING FOLDER...
"""

import os
import sys
from pathlib import Path

import torch

from hydragen_tree.model.loading import find_model, load_weights
from hydragen_tree.model.ranks import Ranks


def main(rank: int, size: int, meeting: str, folders: list[str]) -> None:
    """Says of each folder how far its logits are from the whole model's, relative to those."""
    ranks = Ranks(rank, size, meeting)
    ranks.join(torch.device("cpu"))
    for folder in folders:
        source = find_model(folder, device="cpu", tensor_parallel=size)
        model = load_weights(source, ranks).eval()
        tokens, expected = torch.load(Path(folder, "expected.pt"))
        with torch.inference_mode():
            logits = model(input_ids=tokens, use_cache=False).logits
        weights = sum(weight.numel() for weight in model.parameters())
        away = float((logits - expected).norm() / expected.norm())
        print(Path(folder).name, weights, away, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    os._exit(0)  # as a worker ends: Gloo's threads now and then abort a process that winds up
