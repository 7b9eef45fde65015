"""What is told of a failure: why, how the database is now, and what to do."""

from __future__ import annotations

import threading

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.errors import ConfigError, LakebaseError, LockTimeoutError
from lakebase_provider.core.upkeep.telling.diagnosis import diagnose, lakebase_error
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually
from tests.own_server import lakebase_server as lakebase_server


def test_a_lock_that_was_waited_for_in_vain_and_who_still_holds_it(client: LakebaseClient) -> None:
    with client.connection() as connection:
        connection.execute("CREATE TABLE orders (n int)")
    with client.connect() as holder:
        holder.execute("LOCK orders")
        with pytest.raises(LockTimeoutError) as refused:
            client.maintenance.analyze("orders", lock_timeout=0.5, attempts=1)
        found = diagnose(lambda: client, "Task a.b", refused.value)
        assert found.code == "lock_timeout"
        assert f"{holder.info.backend_pid}" in found.message
        assert found.healthy
        assert found.health.startswith("All is well: ")
        assert found.to_text().startswith("Task a.b failed: ")
        assert f"What to do: {refused.value.remedy}" in found.to_text()


def test_what_holds_up_others_now(client: LakebaseClient, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect = client.inspect
    monkeypatch.setattr(
        client,
        "inspect",
        lambda checks, **given: inspect(checks, limits={"blocked_statements": 0.0}, **given),
    )
    with client.connect() as holder, client.connect() as waiting:
        holder.execute("CREATE TABLE orders (n int)")
        holder.commit()
        holder.execute("LOCK orders")
        thread = threading.Thread(target=waiting.execute, args=("SELECT FROM orders",))
        thread.start()
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"

        def blocked() -> bool:
            with client.connection() as connection:
                found = connection.execute(waits, [waiting.info.backend_pid]).fetchone()
            return found == (1,)

        eventually(blocked)
        found = diagnose(lambda: client, "Task a.b", None)
        holder.rollback()
        thread.join()
    [line] = [one for one in found.holding_up if one.startswith("blocked_statements")]
    assert f"It is held up: {line}" in found.to_text()
    assert found.message == "why is not known here; see the log"


def test_the_stage_that_fails_now_and_what_helps(client: LakebaseClient, lakebase_env: LocalLakebase) -> None:
    lakebase_env.admin.disable_endpoint()
    found = diagnose(
        lambda: client, "Task a.b", ValueError("no rows"), timeout=5, links={"Log": "https://a/b"}
    )
    assert found.healthy is False
    assert found.health.startswith("Stage login failed: ")
    assert (found.message, found.code) == ("ValueError: no rows", "")
    assert found.remedy in found.health
    assert found.remedy
    assert found.holding_up == ()
    assert "[Log](https://a/b)" in found.to_markdown()
    assert found.to_dict()["links"] == {"Log": "https://a/b"}


def test_a_database_that_cannot_be_asked_is_said_to_be_so() -> None:
    def client() -> LakebaseClient:
        raise ConfigError("There is no connection x.", remedy="Make it.")

    found = diagnose(client, "Task a.b", "it broke")
    assert (found.healthy, found.health, found.remedy) == (None, "There is no connection x.", "Make it.")
    assert found.message == "it broke"


def test_the_first_error_of_ours_is_told() -> None:
    ours, ring = LakebaseError("x"), ValueError("y")
    ring.__cause__ = ours
    assert lakebase_error(ring) is ours
    first, second = ValueError("1"), ValueError("2")
    first.__context__, second.__context__ = second, first
    assert lakebase_error(first) is None


def test_nothing_of_it_is_a_link_an_image_or_a_secret(client: LakebaseClient) -> None:
    secret = Secret("a-secret-of-the-test-7f3a9")
    found = diagnose(
        lambda: client, "Task a.b", ValueError(f"![x](https://evil) <img src=x> {secret.reveal()}\nline")
    )
    assert secret.reveal() not in found.to_markdown() + found.to_text()
    line = found.to_markdown().splitlines()[0]
    assert "`ValueError: ![x](https://evil) <img src=x> *** line`" in line
