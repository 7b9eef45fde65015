"""How an error reads in a log: what happened, and what to do on a line of its own."""

from __future__ import annotations

import re
from pathlib import Path

from lakebase_provider.core.errors import ConfigError

PACKAGES = [Path(__file__).parents[3] / name for name in ("lakebase_provider", "dagster_lakebase")]
#: One line each, for the web interfaces of Airflow and Dagster run lines together.
ONE_LINE = {"lakebase_provider/core/upkeep/health/stages.py"}


def test_the_remedy_is_a_line_of_its_own() -> None:
    lines = str(ConfigError("Setting 'x' is missing.", remedy="Set it.")).splitlines()
    assert lines == ["Setting 'x' is missing. [config]", "Remedy: Set it."]


def test_nobody_writes_a_remedy_behind_something_else() -> None:
    texts = {
        str(path.relative_to(package.parent)): path.read_text()
        for package in PACKAGES
        for path in package.rglob("*.py")
    }
    behind = {
        name for name, text in texts.items() if re.search(r"[.\]}] Remedy: |[.\]}] \"\s*f?\"Remedy: ", text)
    }
    assert behind == ONE_LINE
