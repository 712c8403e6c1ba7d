"""The command `blockqnn`: one file a subcommand, with `add` for its options and `run` for its work.

The top of all packages: it may import everything, and nothing imports it.
"""

from flows.cli.main import main

__all__ = ["main"]
