"""The command line: parses, calls, prints. Holds no tensors; importing it never imports torch."""
