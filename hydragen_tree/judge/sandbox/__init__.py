"""Where programs run: levels of isolation, and the code that runs inside."""
