"""What the model of `conftest.py` is like."""

VOCABULARY, BITS, LENGTH = 300, 1.0, 12.0
