"""Samples: the loop that draws them, their text, and the file they go to."""
