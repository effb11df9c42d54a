"""What became of a run: its files read back, looked at, and compared with another run's."""
