"""The model that ships: a very small Llama, its corpus, its training and its evaluation.

It is a demonstration model: it solves short programming tasks of the kind its corpus holds, some
often and some rarely, which is what makes sampling from it worth watching. MODEL_CARD.md has the
figures.

    corpus/      generates problems and programs that are right by construction and by test
    train.py     python -m hydragen_tree.tiny.train: corpus, tokenizer, weights
    evaluate.py  python -m hydragen_tree.tiny.evaluate: pass@k by running sampled programs
"""

from pathlib import Path

MODEL_DIR = Path(__file__).parent
