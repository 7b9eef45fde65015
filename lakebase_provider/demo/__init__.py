"""``lakebase demo``: runs the examples on a local Lakebase and checks the outcome."""

from lakebase_provider.demo.main import run_demo

__all__ = ["run_demo"]
