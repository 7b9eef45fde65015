"""The commands `lakebase restore-point` and `lakebase restore-rows`, on a local Lakebase."""

from __future__ import annotations

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase
from tests.test_cli_objects import Shell
from tests.test_cli_objects import shell as shell


def test_rows_come_back(shell: Shell, lakebase_env: LocalLakebase) -> None:
    with LakebaseClient(lakebase_env.config()) as client:
        with client.connection() as connection:
            connection.execute("DROP TABLE IF EXISTS stock")
            connection.execute("CREATE TABLE stock AS SELECT n AS id FROM generate_series(1, 9) AS n")
        point = shell.run("restore-point")
        with client.connection() as connection:
            connection.execute("DELETE FROM stock WHERE id > 2")
        words = ("restore-rows", "stock", "--at", point, "--key", "id", "--where", "id < 9")
        assert "6 would be put back" in shell.run(*words)
        assert shell.json(*words, "--run")["put_back"] == 6
        with client.connection() as connection:
            assert connection.execute("SELECT count(*) FROM stock").fetchone() == (8,)
    assert "no JSON" in shell.run("restore-rows", "stock", "--at", "{", code=1)
