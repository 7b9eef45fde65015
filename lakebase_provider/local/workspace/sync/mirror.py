"""Lakehouse sync: what changes in the tables of a schema, written to Delta tables of the lakehouse.

Lakebase decodes the write-ahead log. Here a table is read again every few seconds, and compared with what was
there before, which gives the same rows for what has lasted until then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from starlette.concurrency import run_in_threadpool

from lakebase_provider.local.contract.lakehouse import UC_TABLE, table_path
from lakebase_provider.local.postgres.databricks_auth import quote
from lakebase_provider.local.postgres.postgres import Postgres
from lakebase_provider.local.workspace import kinds
from lakebase_provider.local.workspace.changes.rules import Changing, Made, Rules
from lakebase_provider.local.workspace.kinds import timestamp
from lakebase_provider.local.workspace.operations import Plan
from lakebase_provider.local.workspace.resources import database_id_of
from lakebase_provider.local.workspace.settings import ApiError
from lakebase_provider.local.workspace.state import Branch, Resource
from lakebase_provider.local.workspace.sync import delta

_TABLES = """
SELECT c.relname, c.relkind::text, c.relreplident::text FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1
"""
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
#: Postgres' type → Arrow's, for those whose values stay what they are; all others are written as text.
_ARROW = {
    "bigint": "int64",
    "integer": "int32",
    "smallint": "int16",
    "boolean": "bool",
    "real": "float",
    "double precision": "double",
    "date": "date32",
    "bytea": "binary",
}

Row = tuple[Any, ...]


@dataclass
class Status:
    """One table of a schema.

    Attributes:
        table: Its name in Postgres.
        created: Unix time.
        state: Without the API's prefix.
        detail: Why it is skipped.
        lsn: Up to where the log has been written.
        synced: When something was last written, Unix time.
        columns: Names and types, as they were written last.
        rows: How often there was which row.
    """

    table: str
    created: float
    state: str = "SNAPSHOTTING"
    detail: str = ""
    lsn: str | None = None
    synced: float | None = None
    columns: tuple[tuple[str, str], ...] = ()
    rows: Counter[Row] = field(default_factory=Counter)


class CdfConfig(Resource):
    """What Lakehouse sync copies where.

    Args:
        id: Last part of its name.
        branch: Whose Postgres.
        database_id: Id and
        database: name of the database there.
        body: Checked.
        created: Unix time.
    """

    def __init__(
        self, id: str, branch: Branch, database_id: str, database: str, body: dict[str, Any], created: float
    ) -> None:
        super().__init__(kinds.CDF_CONFIG, id, branch, created)
        self.branch, self.database_id, self.database = branch, database_id, database
        self.spec = body
        self.statuses: dict[str, Status] = {}

    @property
    def name(self) -> str:
        """Its full name."""
        return f"{self.branch.name}/databases/{self.database_id}/cdf-configs/{self.id}"


class CdfConfigs(Changing):
    """Configurations of Lakehouse sync, and what follows from them."""

    asks = True

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self._configs: dict[str, Any] = self._workspace.cdf_configs

    def parent(self, ids: Mapping[str, str]) -> tuple[Branch, str, str]:
        """The branch, the id and the name of the database in a path."""
        branch = self._views.branch(ids["project"], ids["branch"])
        name, _ = self._views.database(branch, ids["database"])
        return branch, ids["database"], name

    def make(self, parent: Any, identity: str, body: dict[str, Any], replace: bool) -> Made:
        """Begin to write a schema's changes."""
        delta.require_deltalake(self._workspace.errors)
        branch, _, database = parent
        identity = identity or body["postgres_schema"]
        kinds.CDF_CONFIG.check_id(identity, self._workspace.errors)
        for part in ("catalog", "schema"):
            if not UC_TABLE.fullmatch(f"{body[part]}.x.x"):
                raise self._rules.error("bad_value", field=part, why="must be a name of the Unity Catalog")
        config = CdfConfig(
            identity,
            branch,
            database_id_of(branch, database),
            database,
            {part: body[part] for part in ("catalog", "schema", "postgres_schema")},
            self._workspace.now(),
        )
        there = [one for one in self._configs.values() if one.branch is branch and one.database == database]
        if config.name in self._configs or body["postgres_schema"] in [
            one.spec["postgres_schema"] for one in there
        ]:
            raise self._rules.error("cdf_config_exists")

        def settle() -> None:
            self._configs[config.name] = config
            self._workspace.agenda.spawn(self._write(config))

        return config.name, Plan(settle=settle, view=lambda: self.view(config))

    def remove(self, ids: Mapping[str, str], query: Mapping[str, str]) -> Made:
        """End it; the Delta tables stay, unless `force` is asked for."""
        import shutil

        config, force = self.find(ids), self._rules.flag(query, "force")

        def work() -> None:
            for status in config.statuses.values() if force else ():
                path = table_path(self._workspace.lakehouse, self._uc_table(config, status))
                shutil.rmtree(path, ignore_errors=True)

        return config.name, Plan(work=work, settle=lambda: self._configs.pop(config.name, None))

    def find(self, ids: Mapping[str, str]) -> CdfConfig:
        """The one of a path."""
        branch, database_id, _ = self.parent(ids)
        found = self._configs.get(f"{branch.name}/databases/{database_id}/cdf-configs/{ids['cdf_config']}")
        if not isinstance(found, CdfConfig):
            raise self._views.missing("cdf config id")
        return found

    def get(self, ids: Mapping[str, str]) -> dict[str, Any]:
        """GET of one."""
        return self.view(self.find(ids))

    def view(self, config: CdfConfig) -> dict[str, Any]:
        """One as it is answered: without a spec, its fields are at the top."""
        return {
            "name": config.name,
            "cdf_config_id": config.id,
            "create_time": timestamp(config.created),
            **config.spec,
        }

    def statuses(self, ids: Mapping[str, str]) -> list[dict[str, Any]]:
        """GET of all tables of one."""
        config = self.find(ids)
        return [self._status_view(config, one) for one in config.statuses.values()]

    def status(self, ids: Mapping[str, str]) -> dict[str, Any]:
        """GET of one table."""
        config = self.find(ids)
        if ids["status"] not in config.statuses:
            raise self._views.missing("cdf status id")
        return self._status_view(config, config.statuses[ids["status"]])

    def list(self, ids: Mapping[str, str]) -> list[dict[str, Any]]:
        """GET of all of a database."""
        branch, database_id, _ = self.parent(ids)
        return [
            self.view(one)
            for one in self._configs.values()
            if one.branch is branch and one.database_id == database_id
        ]

    def _status_view(self, config: CdfConfig, status: Status) -> dict[str, Any]:
        told: dict[str, Any] = {
            "name": f"{config.name}/cdf-statuses/{status.table}",
            "postgres_table": status.table,
            "uc_table": self._uc_table(config, status),
            "state": f"CDF_STATE_{status.state}",
            "create_time": timestamp(status.created),
        }
        if status.detail:
            told["status_detail"] = status.detail
        if status.lsn is not None:
            told["committed_lsn"] = status.lsn
        if status.synced is not None:
            told["last_sync_time"] = timestamp(status.synced)
        return told

    def _uc_table(self, config: CdfConfig, status: Status) -> str:
        return f"{config.spec['catalog']}.{config.spec['schema']}.lb_{status.table}_history"

    def clear(self) -> None:
        """Forget all of them."""
        self._configs.clear()

    # Writing.

    async def _write(self, config: CdfConfig) -> None:
        if self._configs.get(config.name) is not config:
            return
        try:
            branch = self._views.branch(config.branch.project.id, config.branch.id)
        except ApiError:
            for status in config.statuses.values():
                status.state = "TERMINATED"
            return
        await run_in_threadpool(self._look, config, branch)
        due = self._workspace.now() + self._settings.cdf_seconds
        self._workspace.agenda.at(due, lambda: self._again(config))

    def _again(self, config: CdfConfig) -> None:
        self._workspace.agenda.spawn(self._write(config))

    def _look(self, config: CdfConfig, branch: Branch) -> None:
        """Write what has changed since the last look. Called in a thread."""
        postgres = self._views.postgres(branch)
        schema, now = config.spec["postgres_schema"], self._workspace.now()
        for table, kind, identity in postgres.execute(_TABLES, (schema,), database=config.database):
            status = config.statuses.setdefault(table, Status(table, now))
            if kind == "p" or identity != "f":
                status.state = "SKIPPED"
                why = (
                    "partitioned tables are not supported" if kind == "p" else "REPLICA IDENTITY is not FULL"
                )
                status.detail = f"Table {schema}.{table} is skipped: {why}"
                continue
            try:
                self._follow(config, status, postgres, f"{quote(schema)}.{quote(table)}", now)
            except Exception as error:  # one table's trouble is no other's
                status.state, status.detail = "SKIPPED", " ".join(str(error).split())

    def _follow(self, config: CdfConfig, status: Status, postgres: Postgres, name: str, now: float) -> None:
        with postgres.session(config.database) as session:
            # Before the rows: whoever has taken a later position has committed what is read now.
            ((lsn,),) = session.execute("SELECT pg_current_wal_lsn()::text").fetchall()
            columns = tuple(session.execute(_COLUMNS, (name,)).fetchall())
            rows = _rows(session, name, columns)
        is_new = columns != status.columns
        if is_new and not rows:
            # It needs one row to begin with.
            return
        added, removed = (rows, Counter[Row]()) if is_new else (rows - status.rows, status.rows - rows)
        if is_new or added or removed:
            changes = [("delete", row) for row in removed.elements()]
            changes += [("insert", row) for row in added.elements()]
            path = table_path(self._workspace.lakehouse, self._uc_table(config, status))
            _append(str(path), columns, changes, lsn, now, anew=is_new)
            status.columns, status.rows, status.synced, status.lsn = columns, rows, now, lsn
        elif self._settings.cdf_lsn_follows_server:
            status.lsn = lsn
        status.state, status.detail = "STREAMING", ""


def _rows(session: psycopg.Connection[Any], name: str, columns: tuple[tuple[str, str], ...]) -> Counter[Row]:
    parts = [quote(column) if kind in _ARROW else f"{quote(column)}::text" for column, kind in columns]
    query = f"SELECT {', '.join(parts)} FROM {name}"  # noqa: S608 - names that are quoted
    return Counter(session.execute(query.encode()).fetchall())


def _append(
    path: str,
    columns: tuple[tuple[str, str], ...],
    changes: list[tuple[str, Row]],
    lsn: str,
    now: float,
    *,
    anew: bool,
) -> None:
    """Append changes to a Delta table; `anew` writes its history from the start, as for other columns."""
    import pyarrow as pa
    from deltalake import write_deltalake

    fields = [(column, _ARROW.get(kind, "string")) for column, kind in columns]
    arrays = {
        column: pa.array([row[place] for _, row in changes], pa.type_for_alias(kind))
        for place, (column, kind) in enumerate(fields)
    }
    count = len(changes)
    arrays |= {
        "_pg_change_type": pa.array([kind for kind, _ in changes], pa.string()),
        "_pg_lsn": pa.array([lsn] * count, pa.string()),
        "_pg_xid": pa.array([None] * count, pa.int64()),
        "_timestamp": pa.array([int(now * 1e6)] * count, pa.timestamp("us", "UTC")),
        "_sort_by": pa.array(range(count), pa.int64()),
    }
    mode: Any = {"mode": "overwrite", "schema_mode": "overwrite"} if anew else {"mode": "append"}
    write_deltalake(path, pa.table(arrays), **mode)
