"""`python -m hydragen_cli`, where the command is not on the path."""

from hydragen_cli.process import run

if __name__ == "__main__":  # not in a process that one of the commands starts
    run()
