"""Refreshes materialized views, beside their readers where that is possible."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from lakebase_provider.core.database.catalog import TableName
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.upkeep.maintenance.maintenance_options import Concurrently
from lakebase_provider.core.upkeep.maintenance.own_session import OwnSession
from lakebase_provider.core.upkeep.maintenance.tended_tables import TendedTable, named_tables

# What REFRESH ... CONCURRENTLY asks for.
_STATE = """
SELECT c.relispopulated, EXISTS (
    SELECT FROM pg_catalog.pg_index i
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
        AND i.indpred IS NULL AND i.indexprs IS NULL)
FROM pg_catalog.pg_class c WHERE c.oid = %s
"""


def refresh(session: OwnSession, views: Sequence[TableName], concurrently: Concurrently) -> None:
    """Refresh materialized views in their order; see ``client.maintenance.refresh``."""
    found = named_tables(session, views)
    for view in found:
        if view.kind != "m":
            raise ConfigError(f"{view.name} is no materialized view.", remedy="Name materialized views.")
    for view in found:
        if view.obstacle is not None:
            session.skip(str(view.name), view.obstacle)
            continue
        with session.going_on(), session.alone_with(str(view.name)):
            _refresh(session, view, concurrently)


def _refresh(session: OwnSession, view: TendedTable, concurrently: Concurrently) -> None:
    ((populated, unique),) = session.ask(_STATE, view.oid)
    why_not = None
    if not populated:
        why_not = "it holds nothing yet"
    elif not unique:
        why_not = "it has no unique index on plain columns, of all its rows"
    if concurrently is True and why_not is not None:
        raise ConfigError(
            f"{view.name} cannot be refreshed concurrently: {why_not}.",
            remedy="Create such an index, or let concurrently be 'auto'.",
        )
    beside = concurrently is not False and why_not is None
    statement = sql.SQL("REFRESH MATERIALIZED VIEW {}{}").format(
        sql.SQL("CONCURRENTLY " if beside else ""), view.name.sql()
    )
    seconds = session.run(f"Refreshing {view.name}", statement)
    note = "concurrently" if beside else f"not concurrently ({why_not or 'as asked for'})"
    session.did(str(view.name), f"refreshed {note}", seconds)
