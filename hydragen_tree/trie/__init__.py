"""The trie of all prompts, and where folding it is cheaper than sharing."""
