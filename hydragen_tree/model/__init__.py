"""The model: loading, the adapter to transformers, keys and values."""
