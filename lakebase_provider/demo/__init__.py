"""``lakebase demo``: the examples on a local Lakebase, and whether all was right."""

from lakebase_provider.demo.main import run_demo

__all__ = ["run_demo"]
