"""What the examples' tables should hold, computed here and not read from the examples."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from psycopg import sql

from lakebase_provider.core.connect.connection import LakebaseConnection

#: The examples read the number of orders from this variable.
ORDERS_VARIABLE = "LAKEBASE_EXAMPLE_ORDERS"
_CUSTOMERS = 50


@dataclass(frozen=True)
class Difference:
    """One figure of a table, expected and found."""

    table: str
    figure: str
    expected: object
    found: object

    @property
    def as_expected(self) -> bool:
        """True if there is none."""
        return self.expected == self.found


def compare_tables(connection: LakebaseConnection, schema: str, orders: int) -> list[Difference]:
    """Rows and sums of both tables of an example, expected and found.

    Args:
        connection: Where to look.
        schema: The example's schema.
        orders: How many orders it was told to load.
    """
    total = sum((Decimal(i * 37 % 10_000) / 100 for i in range(1, orders + 1)), Decimal(0)).quantize(
        Decimal("0.01")
    )
    figures = (
        ("orders", "rows", "count(*)", orders),
        ("orders", "sum of amount", "sum(amount)", total),
        ("customer_revenue", "rows", "count(*)", min(orders, _CUSTOMERS)),
        ("customer_revenue", "sum of orders", "sum(orders)::bigint", orders),
        ("customer_revenue", "sum of revenue", "sum(revenue)", total),
    )
    found = []
    for table, figure, expression, expected in figures:
        exists = connection.execute("SELECT to_regclass(%s)", [f"{schema}.{table}"]).fetchone()
        value: object = "no such table"
        if exists and exists[0] is not None:
            query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(expression), sql.Identifier(schema, table))
            row = connection.execute(query).fetchone()
            value = row[0] if row else None
        found.append(Difference(f"{schema}.{table}", figure, expected, value))
    return found
