"""`python -m hydragen_cli`, where the command is not on the path."""

from hydragen_cli.main import run

run()
