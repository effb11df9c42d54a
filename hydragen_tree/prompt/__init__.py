"""Prompts: problems and few-shot examples as token ids."""
