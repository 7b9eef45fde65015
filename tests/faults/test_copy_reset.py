"""The link is reset in the middle of a COPY."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.bulk.load.result import Mode
from lakebase_provider.core.errors import LoadInterruptedError
from lakebase_provider.local import FaultProxy, LocalLakebase

ROWS = 60_000


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
@pytest.mark.parametrize("load_id", [None, "day/1"])
def test_a_reset_in_the_middle_of_a_copy_writes_nothing(
    lake: LocalLakebase, proxy: FaultProxy, mode: Mode, load_id: str | None
) -> None:
    def rows(*, cut: bool) -> Iterator[tuple[int, str]]:
        for i in range(ROWS):
            if cut and i == ROWS // 2:
                proxy.reset()
            yield i, "some text"

    with LakebaseClient(lake.config()) as direct:
        with direct.connection() as connection:
            connection.execute("DROP TABLE IF EXISTS t, lakebase_load")
            connection.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
            connection.execute("INSERT INTO t VALUES (-1, 'old')")
        with LakebaseClient(lake.config(port=proxy.port)) as client:
            with pytest.raises(LoadInterruptedError) as caught:
                client.load(rows(cut=True), "t", mode=mode, load_id=load_id)
            assert caught.value.retryable
            with direct.connection() as connection:
                assert connection.execute("SELECT * FROM t").fetchall() == [(-1, "old")]
            # The same call again succeeds, on the same client.
            result = client.load(rows(cut=False), "t", mode=mode, load_id=load_id)
            assert not result.skipped
            assert result.inserted == ROWS
        with direct.connection() as connection:
            expected = ROWS + (mode != "replace")
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (expected,)
