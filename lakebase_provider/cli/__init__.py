"""The command ``lakebase``: a file for each group of its commands."""

from lakebase_provider.cli.command import main

__all__ = ["main"]
