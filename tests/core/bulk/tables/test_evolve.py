from __future__ import annotations

import pytest

from lakebase_provider.core.bulk.tables.evolve import common_type


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        ("smallint", "bigint", "bigint"),
        ("integer", "integer", "integer"),
        ("real", "double precision", "double precision"),
        ("integer", "real", "double precision"),
        ("integer", "numeric(6,2)", "numeric(12,2)"),
        ("numeric(4,2)", "numeric(5,4)", "numeric(6,4)"),
        ("numeric(1000,0)", "numeric(10,5)", "numeric"),
        ("numeric", "bigint", "numeric"),
        ("character varying(10)", "text", "text"),
        ("character(3)", "character varying", "text"),
        ("date", "timestamp without time zone", "timestamp without time zone"),
        # A double holds no bigint exactly, a decimal no float, and nobody knows the zone of a wall clock.
        ("bigint", "double precision", None),
        ("numeric(10,2)", "double precision", None),
        ("timestamp without time zone", "timestamp with time zone", None),
        ("text", "integer", None),
    ],
)
def test_the_narrowest_type_that_holds_both(first: str, second: str, common: str | None) -> None:
    assert common_type(first, second) == common
    assert common_type(second, first) == common
