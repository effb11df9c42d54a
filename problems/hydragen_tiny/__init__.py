"""The corpus, the training and the evaluation of the model that ships; not part of the package.

It is a demonstration model: it solves short programming tasks of the kind its corpus holds, some
often and some rarely, which is what makes sampling from it worth watching. Its card, in
`hydragen_tree/model/tiny`, has the figures.

    corpus/      generates problems and programs that are right by construction and by test
    train.py     PYTHONPATH=problems python -m hydragen_tiny.train: corpus, tokenizer, weights
    evaluate.py  PYTHONPATH=problems python -m hydragen_tiny.evaluate: pass@k of sampled programs
"""
