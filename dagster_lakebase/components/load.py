"""A load as a component: files as they land, each of them once, or a Delta table."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import dagster as dg

from dagster_lakebase.components.connection import Connection
from dagster_lakebase.components.partition_values import each_partition, partition_names
from dagster_lakebase.components.scaffolding import LoadScaffolder
from dagster_lakebase.resource.failures import failing_fast
from dagster_lakebase.resource.hidden_inputs import HiddenInputs
from dagster_lakebase.tables.assets import TABLE_NAME, column_schema, require_database, table_of
from dagster_lakebase.tables.op_names import op_name
from lakebase_provider.core.bulk.load.plan import LOAD_OPTIONS, check_load_options
from lakebase_provider.core.bulk.load.result import Delete, Fallback, Mode, Since
from lakebase_provider.core.bulk.sources.delta.delta import Delta
from lakebase_provider.core.bulk.sources.delta.opened import is_delta
from lakebase_provider.core.bulk.tables.schema_evolution import SchemaEvolution
from lakebase_provider.core.connect.parameters.placeholders import missing_values, parse
from lakebase_provider.core.database.facts import TableRef, count_rows, fetch_table_facts
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.errors.remedy import without_options

if TYPE_CHECKING:
    from dagster_lakebase.resource.resource import LakebaseResource
    from lakebase_provider.core.bulk.load.result import LoadResult

_COUNTS = ("inserted", "updated", "unchanged", "deleted", "rejected")
#: Partition values that are not text.
_NO_TEXTS = frozenset({"partition_keys", "partition_start", "partition_end"})

_WILDCARD = re.compile(r"[*?\[]")
#: A name in braces, in a path or a load's id.
_FIELD = re.compile(r"\{(\w+)\}")


@dg.scaffold_with(LoadScaffolder)
class LakebaseLoadComponent(dg.Component, HiddenInputs):
    """An asset that is loaded by COPY from files (Parquet, CSV, JSON lines, Arrow), each once, or from Delta.

    ``source`` is a path, a URI or a pattern of them. Each file is a transaction of its own, and is loaded
    once by its ``load_id``: a materialization loads what has landed since the last one, and continues where a
    failed one stopped. ``{partition_key}`` and, for multi-partitions, ``{partition_<dimension>}`` in the
    source stand for the partition; they, ``{file}`` and ``{run_id}`` may also be used in ``load_id``.

    Or ``source`` is a Delta table, ``delta:`` and its path. With ``since: ledger`` a materialization brings
    what has changed since the version that the ledger holds, deletions included; the data version then tells
    which version the table has.
    """

    connection: Connection = "lakebase"
    source: Annotated[
        str,
        dg.Resolver.default(
            description="Path or URI of a file, or a pattern; relative to the component's folder. Or a Delta "
            "table: delta: and its path or URI.",
            examples=[
                "landing/*.parquet",
                "s3://landing/orders/{partition_key}/*.parquet",
                "delta:s3://lake/orders",
            ],
        ),
    ]
    asset: Annotated[
        dg.ResolvedAssetSpec,
        dg.Resolver.default(
            description="The asset. Its key names the table, unless the metadata dagster/table_name does."
        ),
    ]
    mode: Annotated[
        Mode,
        dg.Resolver.default(
            description="append adds the rows; merge also updates rows with the same key; replace removes "
            "all other rows, in the table or where 'where' holds."
        ),
    ] = "append"
    keys: Annotated[
        list[str] | None,
        dg.Resolver.default(
            description="For merge: columns that identify a row; the primary key by default."
        ),
    ] = None
    columns: Annotated[
        list[str] | None,
        dg.Resolver.default(
            description="The table's columns that take the file's; matched by name by default."
        ),
    ] = None
    since: Annotated[
        Since | None,
        dg.Resolver.default(
            description="For merge from a Delta table: ledger loads what has changed since the version that "
            "the ledger holds for the table, by the change data feed; all rows the first time."
        ),
    ] = None
    fallback: Annotated[
        Fallback | None,
        dg.Resolver.default(
            description="With since: replace replaces all rows where nothing tells what has changed; an "
            "error by default."
        ),
    ] = None
    version_column: Annotated[
        str | None,
        dg.Resolver.default(
            description="For merge: the column that versions a row; a row with a smaller value does not "
            "update it."
        ),
    ] = None
    delete: Annotated[
        Delete,
        dg.Resolver.default(description="For merge: missing removes rows whose key is not in the file."),
    ] = "none"
    where: Annotated[
        str | None,
        dg.Resolver.default(
            description="The slice that is replaced, or in which rows may be removed: SQL, with the "
            "partition's values as %(partition_key)s, %(partition_start)s, %(partition_end)s, "
            "%(partition_<dimension>)s."
        ),
    ] = None
    create: Annotated[
        bool, dg.Resolver.default(description="Whether to create a missing table, with the file's types.")
    ] = True
    schema_evolution: Annotated[
        SchemaEvolution | None,
        dg.Resolver.default(
            description="What may happen to a table with other columns than the file's: error refuses "
            "them, add adds columns, widen also makes types wider, recreate gives a table its columns whose "
            "rows are all replaced. Without it the table stays as it is."
        ),
    ] = None
    load_id: Annotated[
        str | None,
        dg.Resolver.default(
            description="What is loaded once: {file} by default; {run_id}/{file} for replace and for a Delta "
            "table, so that each run loads it; nothing with since. null to load at each attempt."
        ),
    ] = "{file}"
    reject_to: Annotated[
        str | None,
        dg.Resolver.default(
            description="A table for rows that cannot be encoded; without it, they are errors."
        ),
    ] = None
    ledger_schema: Annotated[
        str | None,
        dg.Resolver.default(
            description="Schema of the table lakebase_load, which keeps the ids; the table's by default."
        ),
    ] = None
    lsn: Annotated[
        bool,
        dg.Resolver.default(
            description="Whether to note in the metadata the position in the server's log after the last "
            "commit (lakebase/lsn), which Lakehouse sync has to reach."
        ),
    ] = False
    allow_no_files: Annotated[
        bool, dg.Resolver.default(description="Whether a pattern may match no file.")
    ] = False
    restore_point: Annotated[
        bool,
        dg.Resolver.default(
            description="Whether to note in the metadata, before anything is loaded, the moment as of which "
            "rows can be put back."
        ),
    ] = False
    name: Annotated[
        str | None, dg.Resolver.default(description="The op's name; the asset's if left out.")
    ] = None
    pool: Annotated[
        str | None, dg.Resolver.default(description="The concurrency pool that limits how many run at once.")
    ] = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset.

        Raises:
            DagsterInvalidDefinitionError: Options contradict each other, or a name in braces is unknown.
        """
        self._check()
        spec, folder, source = self.asset, context.path, self.source
        table = table_of(spec.key, spec.metadata)
        shown = {"lakebase/source": source}
        spec = spec.replace_attributes(metadata={TABLE_NAME: str(table), **shown, **spec.metadata})

        @dg.multi_asset(
            name=self.name or op_name([spec.key]),
            specs=[spec],
            required_resource_keys={self.connection},
            op_tags={"dagster/kind": "lakebase"},
            pool=self.pool,
        )
        def lakebase_load(context) -> Iterator[dg.MaterializeResult[Any]]:  # type: ignore[no-untyped-def] # Dagster reads annotations as objects
            lakebase: LakebaseResource = getattr(context.resources, self.connection)
            with failing_fast():
                require_database(spec.key, self.asset.metadata, lakebase.client.config.database)
                point = lakebase.restore_point_metadata(context.log) if self.restore_point else {}
                results = list(self._loads(context, lakebase, folder, table))
            yield dg.MaterializeResult(
                asset_key=spec.key,
                data_version=self._data_version(results),
                metadata={
                    **_metadata(results),
                    **_facts(lakebase, table),
                    **lakebase.branch_metadata(),
                    **point,
                },
            )

        return dg.Definitions(assets=[lakebase_load])

    def _check(self) -> None:
        self._check_delta()
        definition = self.asset.partitions_def
        values = partition_names([definition])
        texts = values - _NO_TEXTS
        named = set(fields_of(self.source))
        require_known("source", named, texts)
        require_known("load_id", fields_of(self._id), texts | {"file", "run_id"})
        if definition is not None and not named:
            raise dg.DagsterInvalidDefinitionError(
                "The asset has partitions, but source names none: each would load the same files. Use "
                "{partition_key} in the path of its files."
            )
        if missing := parse(self.where or "").missing(values):
            raise dg.DagsterInvalidDefinitionError(f"where: {missing_values(missing, values)}")
        if definition is not None and self.where is None and self._replaces:
            raise dg.DagsterInvalidDefinitionError(
                f"The asset has partitions, but {'mode' if self.mode == 'replace' else 'delete'} would "
                "remove the rows of all of them. Select the partition's rows in where, such as 'day = "
                "%(partition_key)s'."
            )
        if self.where is not None and not self._replaces:
            raise dg.DagsterInvalidDefinitionError(
                "where has no meaning without mode replace or delete missing. Leave it out."
            )
        for_merge = ("keys", "version_column", *(["delete"] if self.delete != "none" else []))
        given = [name for name in for_merge if getattr(self, name) is not None]
        if given and self.mode != "merge":
            raise dg.DagsterInvalidDefinitionError(
                f"{given[0]} has no meaning with mode {self.mode}. Leave it out, or set mode to merge."
            )

    def _check_delta(self) -> None:
        given = self.load_id if "load_id" in self.model_fields_set else None
        try:
            if is_delta(self.source) and fields_of(Delta.parse(self.source).filter or ""):
                # It is SQL, and partition keys may come from whoever launches a run.
                raise dg.DagsterInvalidDefinitionError(
                    "The filter of the Delta table in source names a partition. Name partitions in its path."
                )
            if self.since is not None or self.fallback is not None:
                check_load_options(self._plan({}, given))
        except ConfigError as error:
            raise dg.DagsterInvalidDefinitionError(str(error)) from error
        if self.since is not None and not is_delta(self.source):
            raise dg.DagsterInvalidDefinitionError(
                "since has no meaning without a Delta table. Leave it out, or name one as source: delta:…"
            )

    @property
    def _replaces(self) -> bool:
        return self.mode == "replace" or self.delete == "missing"

    @property
    def _id(self) -> str:
        if self.since is not None:
            return ""
        every_run = self.mode == "replace" or is_delta(self.source)
        if every_run and "load_id" not in self.model_fields_set:
            return "{run_id}/{file}"
        return self.load_id or ""

    def _data_version(self, results: list[LoadResult]) -> dg.DataVersion | None:
        """Of a Delta table the id in the ledger, which tells the table and its version."""
        ids = {result.load_id or "" for result in results} if self.since is not None else set()
        return dg.DataVersion(ids.pop()) if len(ids) == 1 else None

    def _plan(self, values: Mapping[str, Any], load_id: str | None) -> dict[str, Any]:
        """The options of a load."""
        return {name: getattr(self, name) for name in LOAD_OPTIONS if name in type(self).model_fields} | {
            "where": (self.where, values) if self.where and values else self.where,
            "load_id": load_id,
            "on_error": "fail" if self.reject_to is None else "reject",
            "ledger_schema": self.ledger_schema if load_id or self.since else None,
        }

    def _loads(
        self, context: dg.AssetExecutionContext, lakebase: LakebaseResource, folder: Path, table: TableRef
    ) -> Iterator[LoadResult]:
        from lakebase_provider.core.bulk.load.commit import load_and_commit
        from lakebase_provider.core.bulk.sources.delta.delta import with_catalog

        absent = set(LOAD_OPTIONS) - type(self).model_fields.keys()
        for values in each_partition(context):
            texts = texts_of(values)
            for file in self._files(folder, texts):
                load_id = filled(self._id, {**texts, "file": file.name, "run_id": context.run.run_id}) or None
                context.log.info("Loading %s into %s.", file.name, table)
                with without_options(*absent):
                    result = load_and_commit(
                        lakebase.get_connection,
                        with_catalog(file.source, lambda: lakebase.client.workspace.catalog_tables),
                        (table.schema, table.name),
                        **self._plan(values, load_id),
                    )
                if result.skipped:
                    context.log.info("Skipped: load_id %r is already in %s.", result.load_id, table)
                yield result

    def _files(self, folder: Path, texts: Mapping[str, str]) -> list[LandedFile]:
        files = landed_files(self.source, folder, texts)
        if not files and not self.allow_no_files:
            raise ConfigError(
                f"No file matches {filled(self.source, texts)!r}.",
                remedy="Correct source, or set allow_no_files if there may be no files yet.",
            )
        if len(files) > 1 and self._replaces:
            raise ConfigError(
                f"{len(files)} files match {filled(self.source, texts)!r}, and each would remove the rows of "
                "the previous one.",
                remedy="Name one file, or use mode append, or merge without delete.",
            )
        return files


def texts_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a partition that are text, and may be a part of a path."""
    return {name: value for name, value in values.items() if name not in _NO_TEXTS}


def require_known(field: str, named: Iterable[str], known: set[str]) -> None:
    """Refuse a name in braces that stands for nothing.

    Args:
        field: The field that it is in, for the error.
        named: The names in braces.
        known: Names that have values.

    Raises:
        DagsterInvalidDefinitionError: There is one.
    """
    if unknown := sorted(set(named) - known):
        there = ", ".join(f"{{{name}}}" for name in sorted(known)) or "none"
        raise dg.DagsterInvalidDefinitionError(
            f"{field} names {{{unknown[0]}}}; there are: {there}. Those of a partition are there for an "
            "asset with partitions."
        )


def _metadata(results: list[LoadResult]) -> dict[str, Any]:
    loaded = [result for result in results if not result.skipped]
    ids = [result.load_id for result in results if result.load_id]
    return {
        **({"lakebase/load_id": ids[0]} if len(ids) == len(results) == 1 else {}),
        "lakebase/files": len(loaded),
        "lakebase/files_skipped": len(results) - len(loaded),
        "lakebase/rows_written": sum(result.rows for result in loaded),
        **{f"lakebase/{name}": sum(getattr(result, name) for result in loaded) for name in _COUNTS},
        **({"lakebase/lsn": results[-1].lsn} if results and results[-1].lsn else {}),
    }


def _facts(lakebase: LakebaseResource, table: TableRef) -> dict[str, Any]:
    with lakebase.get_connection() as connection:
        facts = fetch_table_facts(connection, [table]).get(table)
        if facts is None:
            return {}
        found: dict[str, Any] = {"dagster/column_schema": column_schema(facts)}
        if facts.is_soon_counted():
            found["dagster/row_count"] = count_rows(connection, [table])[table]
        return found


@dataclass(frozen=True)
class LandedFile:
    """A file that has landed, or a Delta table.

    Attributes:
        name: Its name in ids, logs and metadata: relative to the component's folder if its source is, so that
            it is the same on every machine.
        source: The source for a load.
    """

    name: str
    source: str | Path | Delta


def fields_of(text: str) -> list[str]:
    """The names in braces."""
    return _FIELD.findall(text)


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with the names in braces replaced by their values."""
    return _FIELD.sub(lambda field: values[field[1]], text)


def landed_files(source: str, folder: Path, values: Mapping[str, str]) -> list[LandedFile]:
    """The files that a path stands for, sorted by name.

    A pattern's matches that begin with a dot or an underscore are left out, since files still being written
    are named like that.

    Args:
        source: A local path, relative to the folder or not, or a URI; it may hold ``*``, ``?``, ``[…]`` and
            ``**``, and names in braces. Or a Delta table, in whose path there may be names in braces.
        folder: The component's folder.
        values: Values for the names in braces.

    Raises:
        ConfigError: A value would point outside its folder, or the path must not be read.
    """
    from lakebase_provider.core.bulk.files.locations import locate, protocol_of

    if is_delta(source):
        return [LandedFile(filled(source, values), delta_table(source, folder, values))]
    for name in fields_of(source):
        _require_plain(name, values[name])
    has_pattern = _WILDCARD.search(_FIELD.sub("", source)) is not None
    as_text = glob.escape if has_pattern else str
    text = filled(source, {name: as_text(value) for name, value in values.items()})
    if protocol_of(text, "source") not in ("", "file", "local"):
        if not has_pattern:
            return [LandedFile(text, text)]
        place = locate(text, "source")
        found = sorted(place.fs.unstrip_protocol(path) for path in place.fs.glob(place.path))
        return [LandedFile(uri, uri) for uri in found if _is_whole(PurePosixPath(uri), PurePosixPath(text))]
    path = _local(text)
    whole = folder / path
    if not has_pattern:
        return [LandedFile(path.as_posix(), whole)]
    # Not Path.glob, which does not accept absolute patterns.
    matches = sorted(map(Path, glob.glob(str(whole), recursive=True)))  # noqa: PTH207
    return [
        LandedFile((match if path.is_absolute() else match.relative_to(folder)).as_posix(), match)
        for match in matches
        if match.is_file() and _is_whole(match, whole)
    ]


def delta_table(text: str, folder: Path, values: Mapping[str, str]) -> Delta:
    """The Delta table that a text names, ``delta:`` and its path.

    Args:
        text: The text; there may be names in braces in the path.
        folder: The component's folder, for a local path that is relative.
        values: Values for the names in braces.

    Raises:
        ConfigError: It is malformed, or must not be read; or a value would point outside its folder.
    """
    named = Delta.parse(text)
    for name in fields_of(str(named.path)):
        _require_plain(name, values[name])
    return replace(named, path=placed(filled(str(named.path), values), folder))


def placed(text: str, folder: Path) -> str | Path:
    """A URI of a store as it is, and a local path in the component's folder, unless it is absolute.

    Raises:
        ConfigError: Its protocol is not allowed.
    """
    from lakebase_provider.core.bulk.files.locations import protocol_of

    return folder / _local(text) if protocol_of(text, "source") in ("", "file", "local") else text


def _local(text: str) -> Path:
    return Path(text.partition("://")[2] or text).expanduser()


def _is_whole(path: PurePath, pattern: PurePath) -> bool:
    fixed = next(i for i, part in enumerate(pattern.parts) if _WILDCARD.search(part))
    return not any(part.startswith((".", "_")) for part in path.parts[fixed:])


def _require_plain(name: str, value: Any) -> None:
    """Partition keys may come from whoever launches a run."""
    if any(part in ("", ".", "..") for part in re.split(r"[/\\]", value)):
        raise ConfigError(
            f"source holds {{{name}}}, which is {value!r}: it would point to another folder.",
            remedy="Name partitions without '..', and without a slash at either end.",
        )
