"""Sessions that lie idle, ended for the sake of a compute that is to be suspended."""

from __future__ import annotations

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase


async def test_idle_sessions_are_ended_on_request_but_for_the_least_of_the_pool(
    lakebase_env: LocalLakebase,
) -> None:
    for least in (0, 1):
        client = LakebaseClient(lakebase_env.config(min_size=least, max_size=3, application_name="idle ones"))
        lent = await (await client.apool()).getconn()
        async with client.aconnection(), client.aconnection():
            pass
        await client.aclose_idle()
        # What is lent is not touched, and goes back into the pool.
        assert await (await lent.execute("select 1")).fetchone() == (1,)
        assert (await client.apool()).get_stats()["pool_size"] == 1
        await lent.close()
        await client.aclose_idle()
        assert (await client.apool()).get_stats()["pool_size"] == least
        async with client.aconnection() as connection:
            await connection.execute("select 1")
        await client.aclose()
    # Without a pool there is nothing to end.
    await client.aclose_idle()
