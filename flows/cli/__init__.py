"""The command `blockqnn`: one file for each of its subcommands.

The top of all packages: it may import everything, and nothing imports it.
"""

from flows.cli.main import main

__all__ = ["main"]
