"""The model that ships: a very small Llama; its card, MODEL_CARD.md, says how it was made."""

from pathlib import Path

MODEL_DIR = Path(__file__).parent
