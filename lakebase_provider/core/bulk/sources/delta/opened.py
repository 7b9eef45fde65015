"""A Delta table, opened at one version: what it is, and whether it can be read and its changes told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from lakebase_provider.core.bulk.files.locations import shown
from lakebase_provider.core.bulk.sources.delta.delta import PREFIX, Delta
from lakebase_provider.core.errors import ChangesUnavailableError, ConfigError, LakebaseError, LoadError
from lakebase_provider.core.errors.redaction import redacted
from lakebase_provider.core.errors.remedy import Remedy

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

    from lakebase_provider.core.workspace.objects.sync.catalog_tables import TableStorage

FEED = "delta.enableChangeDataFeed"
_MAPPING = "delta.columnMapping.mode"
#: What a table may ask of its readers, as far as rows come out right by the library.
_READ = frozenset({"columnMapping", "deletionVectors", "timestampNtz", "v2Checkpoint"})
#: One file after another: two at once double the memory, and the server is slower than one.
_ENGINE = {
    "datafusion.execution.target_partitions": "1",
    "datafusion.sql_parser.enable_ident_normalization": "false",
}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STACK = re.compile(r"\s+0: ")
#: Characters of what the library says that an error repeats.
_TOLD = 300
#: How the library says that a file is not there, and that it is no longer what was written.
_MISSING = re.compile(r"not found|no such file", re.IGNORECASE)
_DAMAGED = re.compile(r"parquet|corrupt|invalid", re.IGNORECASE)
REPLACE = Remedy(
    "Load with fallback='replace', which then replaces all rows of the table by those of the source.",
    options=("fallback",),
    otherwise="Replace all rows of the table by those of the source.",
)


def is_delta(source: Any) -> bool:
    """Whether a source of rows is a Delta table, in any of the forms that loads take."""
    if isinstance(source, str):
        return source.startswith(PREFIX)
    # By the name of its module, so that the library is not imported for it.
    module, kind = type(source).__module__.partition(".")[0], type(source).__name__
    return isinstance(source, (Delta, OpenDelta)) or (module == "deltalake" and kind == "DeltaTable")


def open_delta(source: Any) -> OpenDelta:
    """A Delta table at the version that is meant.

    Args:
        source: What :func:`is_delta` accepts. A ``DeltaTable`` is read at the version that it has.

    Raises:
        ConfigError: The library is missing; there is no such table or version; its log cannot be read; or it
            asks more of its readers than is known here.
    """
    if isinstance(source, OpenDelta):
        return source
    if isinstance(source, str):
        source = Delta.parse(source)
    if not isinstance(source, Delta):
        return OpenDelta(source, f"{PREFIX}{shown(source.table_uri)}", None, follows=False)
    name, storage = str(source), None
    if source.table_name is not None:
        source, storage = source.found_in_catalog()
    table = _opened(source)
    follows = source.version is None and source.moment is None
    found = OpenDelta(table, name, source.filter, follows=follows)
    # As long as it is alive, no error shows what its credentials are.
    found.storage = storage
    return found


def _opened(source: Delta) -> DeltaTable:
    deltalake = library()
    options = None if source.storage_options is None else dict(source.storage_options)
    with opening(str(source), source.version):
        table: DeltaTable = deltalake.DeltaTable(source.uri, version=source.version, storage_options=options)
        if source.moment is not None:
            # Of a moment before its first version, the library gives that one.
            if table.history()[-1]["timestamp"] > source.moment.timestamp() * 1000:
                raise ConfigError(
                    f"The Delta table {source} has no version from before {source.moment}.",
                    remedy="Give a later timestamp, or a version.",
                )
            table.load_as_version(source.moment)
    return table


def library() -> Any:
    """The library ``deltalake``.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import deltalake
    except ImportError:
        raise ConfigError(
            "Delta tables need the library deltalake.", remedy="Install lakebase-provider[delta]."
        ) from None
    return deltalake


@contextmanager
def opening(name: str, version: int | None) -> Iterator[None]:
    """Raise as a ConfigError whatever the library finds wrong when it opens a table."""
    from deltalake.exceptions import DeltaError, DeltaProtocolError, TableNotFoundError

    try:
        yield
    except LakebaseError:
        raise
    except TableNotFoundError as error:
        what = told(error) if "scheme" in str(error) else "no log of one lies there"
        raise ConfigError(
            f"There is no Delta table {name}: {what}.",
            remedy="Check the path: it is the folder that holds _delta_log.",
        ) from None
    except DeltaProtocolError as error:
        raise ConfigError(
            f"The Delta table {name} cannot be read: {redacted(str(error))}.",
            remedy="Read it with an engine that knows what it asks of readers, and give the Arrow data.",
        ) from None
    except OSError as error:
        raise LoadError(
            f"The store of the Delta table {name} does not answer: {told(error)}.",
            remedy="Retry; if it persists, check the store's address and credentials in the environment.",
            retryable=True,
        ) from None
    except (DeltaError, ValueError) as error:
        raise ConfigError(
            f"The Delta table {name}{_at(version)} cannot be opened: {told(error)}.",
            remedy="Check the path, the version, and that this process may read the table's folder.",
        ) from None


def _at(version: int | None) -> str:
    return "" if version is None else f", version {version},"


def told(error: Exception) -> str:
    """What an error of the library says, on one line and without secrets."""
    # The library adds colours, and the stack of what called it.
    text = _STACK.split(_COLOUR.sub("", str(error)), maxsplit=1)[0]
    return redacted(" ".join(text.split())[:_TOLD]).rstrip(".")


def quoted(name: str) -> str:
    """A column's name in the SQL of the library."""
    return '"' + name.replace('"', '""') + '"'


class OpenDelta:
    """A Delta table at one version.

    Args:
        table: The library's table.
        name: What it is called in errors.
        filter: The condition on its rows; None for all.
        follows: Whether :meth:`refresh` goes on to the newest version.

    Attributes:
        name: What it is called in errors.
        filter: The condition on its rows; None for all.
        id: Its id, which stays when it is moved and changes when it is made anew.
        place: Where it is, without a password.
        storage: Where it was found by its name in the Unity Catalog, and what opens it there.

    Raises:
        ConfigError: It asks more of its readers than is known here.
    """

    def __init__(self, table: DeltaTable, name: str, filter: str | None, *, follows: bool) -> None:
        self.table = table
        self.name = name
        self.filter = filter
        self._follows = follows
        self.storage: TableStorage | None = None
        self.id = str(table.metadata().id)
        self.place = shown(table.table_uri.rstrip("/"))
        self._require_readable()

    @property
    def version(self) -> int:
        """Its version."""
        return int(self.table.version())

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns, in order."""
        return tuple(field.name for field in self.table.schema().fields)

    def refresh(self) -> None:
        """Go on to the newest version, unless another one is meant."""
        if self._follows:
            with opening(self.name, None):
                self.table.update_incremental()
            self._require_readable()

    def require_changes(self, known: int) -> None:
        """Refuse if the changes since a version cannot be told.

        Args:
            known: The version.

        Raises:
            ChangesUnavailableError: They cannot.
        """
        from deltalake.exceptions import DeltaError

        what = f"The changes of {self.name} since version {known} cannot be told: "
        if not self._feeds(self.table):
            raise ChangesUnavailableError(
                f"{what}the table keeps no change data feed.",
                remedy=Remedy(
                    f"Set the table's property {FEED} to true, and load once with fallback='replace'.",
                    options=("fallback",),
                    otherwise=f"Set the table's property {FEED} to true, and replace all rows once.",
                ),
            )
        if self.table.metadata().configuration.get(_MAPPING, "none") != "none":
            raise ChangesUnavailableError(
                f"{what}its columns are renamed by column mapping, with which the library reads no feed.",
                remedy=REPLACE,
            )
        try:
            then = type(self.table)(
                self.table.table_uri, version=known, storage_options=self.table._storage_options
            )
        except DeltaError:
            raise ChangesUnavailableError(
                f"{what}the table's log no longer holds version {known}.", remedy=REPLACE
            ) from None
        if not self._feeds(then):
            raise ChangesUnavailableError(f"{what}its change data feed began later.", remedy=REPLACE)
        if then.schema() != self.table.schema():
            raise ChangesUnavailableError(f"{what}its columns have changed since.", remedy=REPLACE)

    def reader(self, columns: Sequence[str] | None) -> pa.RecordBatchReader:
        """Reads the rows, of these columns or all.

        Raises:
            ConfigError: The filter is no condition on the table's columns.
        """
        import pyarrow as pa

        wanted = ", ".join(map(quoted, self.columns if columns is None else columns))
        # Not DeltaTable.scan, which ignores what follows a condition, and holds more rows at once.
        query = f"SELECT {wanted} FROM delta_table"  # noqa: S608 # the names are quoted, the filter is SQL
        if self.filter is not None:
            query = f"{query} WHERE ({self.filter}\n)"  # which may end in a comment
        with self._filtering():
            builder = library().QueryBuilder(_ENGINE)
            found = builder.register("delta_table", self.table).execute(query)
        return pa.RecordBatchReader.from_stream(found)

    def changes_reader(self, known: int, columns: Sequence[str]) -> pa.RecordBatchReader:
        """Reads the changes since a version, of these columns.

        Raises:
            ConfigError: The filter is no condition on the table's columns.
        """
        import pyarrow as pa

        with self._filtering():
            found = self.table.load_cdf(known + 1, self.version, columns=list(columns), predicate=self.filter)
        return pa.RecordBatchReader.from_stream(found)

    def read_on(self, batches: pa.RecordBatchReader, *, since: int | None = None) -> Iterator[pa.RecordBatch]:
        """The batches of a reader, and an error that names the table if they cannot be read to the end.

        Args:
            batches: The reader.
            since: The version since which they tell the changes, if they do.

        Raises:
            LoadError: A file of the table is missing or damaged, the store did not answer, or the credentials
                that the workspace had lent are over.
            ChangesUnavailableError: A file that tells the changes is missing.
        """
        import pyarrow as pa

        rows = 0
        try:
            for batch in batches:
                rows += batch.num_rows
                yield batch
        except (OSError, pa.ArrowException) as error:
            said = told(error)
            is_missing = _MISSING.search(str(error)) is not None
            what = f"The {'rows' if since is None else 'changes'} of {self.name}, version {self.version},"
            if since is not None and is_missing:
                raise ChangesUnavailableError(
                    f"{what} cannot be read since version {since}: a file of them is gone, as after VACUUM.",
                    remedy=REPLACE,
                ) from None
            if is_missing:
                raise LoadError(
                    f"{what} cannot be read: a file of that version is gone, as after VACUUM.",
                    remedy="Read a newer version, or restore the file.",
                ) from None
            if self.storage is not None and self.storage.is_over(datetime.now(timezone.utc)):
                raise LoadError(
                    f"{what} cannot be read from row {rows + 1:,} onwards: the credentials that the workspace"
                    f" has lent ended at {self.storage.expires:%H:%M:%S} UTC.",
                    remedy="Load less at a time, by a filter for each part, or read by a query on a SQL"
                    " warehouse, whose results need no such credentials.",
                ) from None
            raise LoadError(
                f"{what} cannot be read from row {rows + 1:,} onwards: {said}.",
                remedy="Load again; if it persists, write the file that the message names again.",
                retryable=_DAMAGED.search(said) is None,
            ) from None

    @contextmanager
    def _filtering(self) -> Iterator[None]:
        from deltalake.exceptions import DeltaError

        try:
            yield
        except (DeltaError, OSError, ValueError) as error:
            if self.filter is None:
                raise LoadError(
                    f"{self.name}, version {self.version}, cannot be read: {told(error)}.",
                    remedy="Correct what the message names; nothing was written.",
                ) from None
            raise ConfigError(
                f"{self.name} cannot be read with its filter: {told(error)}.",
                remedy="Give a condition on the table's columns, such as \"day >= '2027-01-01'\".",
            ) from None

    def _feeds(self, table: DeltaTable) -> bool:
        return str(table.metadata().configuration.get(FEED)).lower() == "true"

    def _require_readable(self) -> None:
        asked = set(self.table.protocol().reader_features or ())
        if unknown := sorted(asked - _READ):
            raise ConfigError(
                f"The Delta table {self.name} cannot be read here: it has the feature {unknown[0]!r}.",
                remedy="Drop that feature from the table, or read it with an engine that knows it, and give "
                "the Arrow data.",
            )
