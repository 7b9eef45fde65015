"""Each row of the table in the documentation names a test, and the test is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "explanation" / "beside-postgreshook.md"

#: Words by which the table tells of each thing that PostgresHook does wrong on psycopg 3.
DEFECTS = (
    "Several statements with parameters",
    "Parameters that one of them does not use",
    "A literal `%` beside parameters",
    "`IN %s` with a tuple",
    "a list into an array",
    "polars with parameters",
    "by the primary key, without a schema",
    "a missing file",
    "`copy_expert`",
    "Logs all values",
    "Task out of time",
    "Task asked to end",
)


def rows() -> list[list[str]]:
    table = PAGE.read_text().split("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names_in(file: str) -> set[str]:
    tree = ast.parse((HERE / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_row_names_a_test_that_exists(row: list[str]) -> None:
    feature, _postgres, here, test = row
    if here == "—":
        # What is not there needs no test.
        assert test == ""
        return
    file, name = test.strip("`").split("::")
    assert name in names_in(file), f"{feature}: there is no {test}"


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_has_its_row(defect: str) -> None:
    assert [row for row in rows() if any(defect in cell for cell in row)]
