"""What pages take for granted (tables, rows, a client), and what holds when their reader is through."""

from __future__ import annotations

_CLIENT = """
from datetime import date
from pathlib import Path

from lakebase_provider.core import LakebaseClient, LakebaseConfig

client = LakebaseClient(LakebaseConfig.from_env())
day = date(2024, 5, 1)


def run(*statements):
    with client.connection() as conn:
        for statement in statements:
            conn.execute(statement)
"""

_ORDERS = f"""{_CLIENT}
run(
    "CREATE SCHEMA sales",
    "CREATE TABLE sales.orders (id int PRIMARY KEY, day date, amount numeric(10, 2))",
    "INSERT INTO sales.orders SELECT n, '2024-05-01', n FROM generate_series(1, 3) n",
)
"""

BEFORE = {
    "README.md": f"""{_CLIENT}
import pyarrow as pa
from pyarrow import parquet

run(
    "CREATE TABLE orders (id int PRIMARY KEY, day date, amount numeric(10, 2))",
    "CREATE TABLE totals (day date PRIMARY KEY, amount numeric)",
    "INSERT INTO orders VALUES (1, '2026-11-22', 9.50)",
)
parquet.write_table(pa.table({{"id": [2], "day": ["2026-11-22"], "amount": ["3.00"]}}), "orders.parquet")
""",
    "docs/how-to/airflow-sql.md": f"""{_CLIENT}
run(
    "CREATE TABLE orders (id int PRIMARY KEY, day date, amount numeric(10, 2))",
    "CREATE TABLE orders_copy (LIKE orders)",
    "CREATE TABLE accounts (id int PRIMARY KEY, balance int)",
    "INSERT INTO accounts VALUES (1, 10), (2, 0)",
    "CREATE TABLE closed (day date)",
    "CREATE PROCEDURE close_day(day date) LANGUAGE sql AS 'INSERT INTO closed VALUES (day)'",
)
rows = [(1, 9.5), (2, 3)]
""",
    "docs/how-to/branches.md": f"""{_CLIENT}
run("CREATE TABLE orders AS SELECT 1 AS id")
""",
    "docs/how-to/delta.md": f"""{_CLIENT}
import pyarrow as pa
from deltalake import write_deltalake

days = pa.array([date(2027, 1, 30), date(2027, 1, 31)])
rows = pa.table({{"id": pa.array([1, 2], pa.int64()), "day": days}})
write_deltalake("lake/orders", rows, configuration={{"delta.enableChangeDataFeed": "true"}})
""",
    "docs/how-to/grants.md": _CLIENT,
    "docs/how-to/health.md": _CLIENT,
    "docs/how-to/inspect.md": _CLIENT,
    "docs/how-to/load.md": f"""{_ORDERS}
import os

import polars as pl

run(
    "CREATE TABLE orders (id int PRIMARY KEY, day date, amount numeric(10, 2))",
    "INSERT INTO orders VALUES (30, '2024-05-01', 1), (31, '2024-05-02', 1)",
    "CREATE TABLE sales.state (loaded timestamptz)",
    "INSERT INTO sales.state VALUES (NULL)",
    "CREATE TABLE sales.stock (id int PRIMARY KEY, n int)",
    "INSERT INTO sales.stock VALUES (1, 9), (2, 9)",
)
rows = [{{"id": 1, "day": "2024-05-01", "amount": "9.50"}}, {{"id": 4, "day": "2024-05-01", "amount": "3"}}]
frame = pl.DataFrame({{"id": [40], "day": ["2024-05-03"], "amount": ["7.00"]}})
Path("orders.csv").write_text("id;day;amount\\n10;2024-05-02;NULL\\n", encoding="cp1252")
Path("orders.tsv").write_text("11\\t2024-05-02\\t2.50\\n")
variables = {{name: os.environ["PG" + name.upper()] for name in ("host", "port", "user", "sslrootcert")}}
settings = " ".join(f"{{name}}={{value}}" for name, value in variables.items())
shop_dsn = f"{{settings}} dbname={{os.environ['PGDATABASE']}} password={{client.tokens.get().reveal()}}"
""",
    "docs/how-to/maintenance.md": _CLIENT,
    "docs/how-to/migrations.md": _CLIENT,
    "docs/how-to/programs.md": _CLIENT,
    "docs/how-to/read.md": _ORDERS,
    "docs/how-to/rehearse.md": f"""{_CLIENT}
run("CREATE TABLE orders (id int PRIMARY KEY, amount int)", "INSERT INTO orders VALUES (1, 9), (2, 3)")
""",
    "docs/how-to/synced-tables.md": f"""{_CLIENT}
import os

import pyarrow as pa
from deltalake import write_deltalake

source = str(Path(os.environ["PGSSLROOTCERT"]).parent / "lakehouse/main/src/trips")
write_deltalake(source, pa.table({{"id": [1, 2]}}), configuration={{"delta.enableChangeDataFeed": "true"}})
run(
    "CREATE SCHEMA shop",
    "CREATE TABLE shop.orders (id int PRIMARY KEY, note text)",
    "ALTER TABLE shop.orders REPLICA IDENTITY FULL",
    "INSERT INTO shop.orders VALUES (1, 'first')",
)
""",
    "docs/how-to/test.md": """
from pathlib import Path

Path("my_pipeline.py").write_text('''
def refresh_totals(client):
    with client.connection() as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS totals AS SELECT 1 AS amount")
''')
""",
}

AFTER = {
    "README.md": '''
import inspect
import subprocess

Path("dags").mkdir()
Path("dags/readme.py").write_text(f"""
from airflow.sdk import dag, task
from lakebase_provider.hooks.lakebase import LakebaseHook

{inspect.getsource(refresh.function)}

@dag
def readme():
    refresh()

readme()
""")
# By the connection in the environment: a local Lakebase has a port and an authority of its own.
subprocess.run(["airflow", "dags", "test", "readme"], check=True)
assert list(client.iter_rows("SELECT amount FROM totals"))
run("DELETE FROM totals")
assert defs.get_implicit_global_asset_job_def().execute_in_process().success
''',
    "docs/how-to/airflow-connection.md": """
from airflow.sdk import BaseHook

shop = BaseHook.get_connection("lakebase_shop")
assert shop.extra_dejson["endpoint"] == "projects/p/branches/b/endpoints/e"
assert BaseHook.get_connection("lakebase_sales").schema == "sales"
""",
    "docs/how-to/airflow-sql.md": """
import asyncio

assert asyncio.run(read_orders(day)) == []
assert list(client.iter_rows("SELECT id, balance FROM accounts ORDER BY id")) == [(1, 0), (2, 10)]
assert list(client.iter_rows("SELECT day FROM closed")) == [(day,)]
assert list(client.iter_rows("SELECT count(*) FROM orders_copy")) == [(2,)]
""",
    "docs/how-to/delta.md": """
for table in ("orders", "mirror"):
    assert list(client.iter_rows(f"SELECT count(*) FROM sales.{table}")) == [(2,)]
assert client.load("delta:lake/out", "sales.back", create=True).rows == 2
""",
    "docs/how-to/load.md": """
ids = [id for (id,) in client.iter_rows("SELECT id FROM sales.orders ORDER BY id")]
assert ids == [1, 4, 10, 11, 30, 40], ids
assert list(client.iter_rows("SELECT id, n FROM sales.stock ORDER BY id")) == [(1, 3), (2, 0)]
""",
    "docs/how-to/migrations.md": """
assert [file.state for file in client.migrations.status("migrations").files] == ["done"] * 3
""",
    "docs/how-to/read.md": """
assert table.num_rows == 3
assert len(list(Path("orders_csv").iterdir())) == 2
client.load("orders.parquet", "sales.orders", mode="merge")
""",
}
