"""How an asset is written, according to its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from lakebase_provider.core.base.choices import require_choice
from lakebase_provider.core.bulk.load.result import Delete, Mode
from lakebase_provider.core.bulk.tables.schema_evolution import SCHEMA_EVOLUTIONS, SchemaEvolution
from lakebase_provider.core.errors import ConfigError

_DELETES: tuple[str, ...] = get_args(Delete)
#: What an input without a type annotation is loaded as: module and class.
LOAD_TYPES = {
    "pandas": ("pandas", "DataFrame"),
    "polars": ("polars", "DataFrame"),
    "arrow": ("pyarrow", "Table"),
}

_PREFIX = "lakebase/"


@dataclass(frozen=True)
class WriteOptions:
    """How an output becomes rows.

    Attributes:
        mode: ``replace`` the table, or the partitions of the run; ``append``; or ``merge`` by `keys`.
        keys: Columns that identify a row, for ``merge``.
        schema_evolution: What may happen to a table with different columns.
        delete: For ``merge``: ``missing`` removes the rows whose key is not in the output, in the whole
            table or in the run's partitions.
        restore_point: Whether to note in the metadata, before anything is written, the moment as of which
            rows can be put back.
    """

    mode: Mode = "replace"
    keys: tuple[str, ...] = ()
    schema_evolution: SchemaEvolution = "error"
    delete: Delete = "none"
    restore_point: bool = False

    @classmethod
    def of(cls, metadata: Mapping[str, Any], defaults: WriteOptions) -> WriteOptions:
        """The options in an asset's or an output's metadata, which take precedence over the defaults.

        Args:
            metadata: With the keys ``lakebase/mode``, ``lakebase/keys``, ``lakebase/schema_evolution``,
                ``lakebase/delete``, ``lakebase/restore_point``.
            defaults: The I/O manager's defaults.

        Raises:
            ConfigError: An option is unknown, has an impossible value or contradicts another.
        """
        known = {name: f"{_PREFIX}{name}" for name in cls.__dataclass_fields__}
        given = {key: value for key, value in metadata.items() if key.startswith(_PREFIX)}
        if unknown := sorted(given.keys() - set(known.values())):
            raise ConfigError(
                f"Metadata {', '.join(map(repr, unknown))} is unknown to this I/O manager.",
                remedy=f"Use one or more of: {', '.join(known.values())}.",
            )
        if _value(given.get(known["mode"])) == "upsert":
            raise ConfigError(f"{known['mode']} is 'upsert'.", remedy="Write 'merge', as for every load.")
        options = cls(
            cast(Mode, _one_of(known["mode"], given, get_args(Mode), defaults.mode)),
            column_names(known["keys"], given.get(known["keys"], ())),
            cast(
                SchemaEvolution,
                _one_of(known["schema_evolution"], given, SCHEMA_EVOLUTIONS, defaults.schema_evolution),
            ),
            cast(Delete, _one_of(known["delete"], given, _DELETES, "none")),
            _truth(known["restore_point"], given, defaults.restore_point),
        )
        if (options.mode == "merge") != bool(options.keys):
            raise ConfigError(
                f"{known['mode']} is {options.mode!r} and {known['keys']} names {len(options.keys)} columns.",
                remedy=f"Name the columns that identify a row in {known['keys']}; only 'merge' takes them.",
            )
        if options.delete == "missing" and options.mode != "merge":
            raise ConfigError(
                f"{known['delete']} is 'missing' and {known['mode']} {options.mode!r}.",
                remedy=f"Set {known['mode']} to 'merge', or leave {known['delete']} out: 'replace' leaves "
                "no other rows anyway.",
            )
        return options


def _value(entry: Any) -> Any:
    # Dagster may have wrapped what the author wrote, as it does in MetadataValue.text("append").
    return getattr(entry, "value", entry)


def _one_of(name: str, given: Mapping[str, Any], allowed: Sequence[str], default: str) -> str:
    value = _value(given.get(name, default))
    require_choice(name, value, allowed)
    return str(value)


def _truth(name: str, given: Mapping[str, Any], default: bool) -> bool:
    value = _value(given.get(name, default))
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is of type {type(value).__name__}.", remedy="Give True or False.")
    return value


def column_names(name: str, entry: Any) -> tuple[str, ...]:
    """The columns that the metadata names: one as text, or a list.

    Args:
        name: The metadata's key, for the error.
        entry: Its value.

    Raises:
        ConfigError: It is neither.
    """
    value = _value(entry)
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(column, str) for column in names):
        raise ConfigError(f"{name} is of type {type(value).__name__}.", remedy="Give a list of column names.")
    return tuple(names)
