"""One table of Postgres' types: it is right, complete, and the only one."""

from __future__ import annotations

import ast
from pathlib import Path

import pyarrow as pa
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.encode.binary import dumper
from lakebase_provider.core.bulk.read.decoding.decode import decode
from lakebase_provider.core.bulk.read.decoding.fields import Fields
from lakebase_provider.core.bulk.types.arrow import canonical
from lakebase_provider.core.bulk.types.postgres_types import BY_NAME, KINDS, Kind
from lakebase_provider.core.bulk.types.target_columns import BadValueError, Target
from lakebase_provider.core.bulk.types.values import check
from tests.test_architecture import ROOT, modules_after

TABLE = ROOT / "lakebase_provider/core/bulk/types/postgres_types.py"
NAMES = {name for kind in KINDS for name in (kind.name, kind.sql)}
#: Modules that may name three types, and why.
EXCEPTIONS = {
    "lakebase_provider/core/bulk/types/cursor_values.py": "psycopg's loaders, by psycopg's names",
    "lakebase_provider/core/connect/harmless.py": "words of SQL's grammar, such as those before VARYING",
    "lakebase_provider/core/connect/parameters/adaptation.py": "psycopg's dumpers, by psycopg's names",
    "lakebase_provider/local/workspace/sync/delta.py": "Delta's types, by Delta's names",
    "lakebase_provider/local/workspace/sync/mirror.py": "Arrow's types, by Arrow's names",
}
#: Smaller numbers mean other things as well.
OIDS = {oid for kind in KINDS for oid in (kind.oid, kind.array_oid) if oid > 100}


def sources() -> list[Path]:
    packages = ("lakebase_provider", "dagster_lakebase")
    return [file for name in packages for file in sorted((ROOT / name).rglob("*.py")) if file != TABLE]


def tables_of_types(source: str) -> list[str]:
    """Literals that hold three types or more, by name or by OID, and calls that have them as keywords."""
    found = []
    for node in ast.walk(ast.parse(source)):
        said: set[object] = set()
        if isinstance(node, (ast.Dict, ast.Set, ast.List, ast.Tuple)):
            said = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
            said = {keyword.arg for keyword in node.keywords}
        if len(said & NAMES) >= 3 or len({number for number in said & OIDS if type(number) is int}) >= 3:
            found.append(f"line {node.lineno}: {ast.unparse(node)[:100]}")
    return found


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_other_module_spells_a_table_of_types(file: Path) -> None:
    found = tables_of_types(file.read_text())
    assert bool(found) == (str(file.relative_to(ROOT)) in EXCEPTIONS), found


@pytest.mark.parametrize(
    "source",
    [
        'x = {"int2": 2, "int4": 4, "int8": 8}',
        'x = dict.fromkeys(("bool", "date", "uuid"), 1)',
        'x = {1: "bigint", 2: "real", 3: "timestamp with time zone"}',
        'x = (("is_boolean", "boolean"), ("is_int8", "smallint"), ("is_date", "date"))',
        "x = frozenset({1700, 2950, 3802})",
        "x = dict(int2=1, int4=2, int8=3)",
    ],
)
def test_a_table_of_types_is_seen(source: str) -> None:
    assert tables_of_types(source)


def test_the_server_says_the_same(client: LakebaseClient) -> None:
    with client.connection() as connection:
        found = connection.execute(
            "SELECT oid, typname, typarray, format_type(oid, NULL), greatest(typlen, 0) FROM pg_type"
            " WHERE oid = ANY(%s)",
            [[kind.oid for kind in KINDS]],
        ).fetchall()
    sizes = {oid: size for oid, *_, size in found}
    assert {row[:4] for row in found} == {
        (kind.oid, kind.name, kind.array_oid, kind.sql) for kind in KINDS if kind.oid
    }
    assert [kind.name for kind in KINDS if kind.width and kind.width != sizes[kind.oid]] == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.takes], ids=lambda kind: kind.name)
def test_what_binary_copy_takes_has_a_check_a_packer_and_a_type_of_arrow(kind: Kind) -> None:
    target = Target("c", kind.sql, kind.name, kind.oid)
    assert callable(dumper(target))
    assert isinstance(canonical(target), pa.DataType)
    with pytest.raises(BadValueError, match=f"no {kind.sql}"):
        check(object(), target)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.arrow], ids=lambda kind: kind.name)
def test_what_is_read_in_binary_has_a_decoder(kind: Kind) -> None:
    import numpy as np

    assert kind.arrow is not None
    arrow_type = kind.arrow(pa)
    nothing = Fields(bytearray(16), np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, np.bool_))
    if kind.width:
        nothing = Fields(bytearray(16), np.zeros(0, np.int64), np.zeros(0, np.int64))
    found = decode(nothing, kind.name, arrow_type)
    assert found.type == arrow_type
    assert found.null_count == len(found)
    found.validate(full=True)


def test_each_type_of_arrow_and_each_type_of_a_server_stands_once() -> None:
    held = [name for kind in KINDS for name in (*kind.holds, kind.extension) if name]
    assert sorted(held) == sorted(set(held))
    assert len(BY_NAME) == len(KINDS)


def test_the_table_is_light() -> None:
    loaded = modules_after("import lakebase_provider.core.bulk.types.postgres_types")
    assert not {"psycopg", "pyarrow", "numpy", "polars"} & loaded
