from __future__ import annotations

from collections.abc import Iterator

import pytest

from lakebase_provider.core import LakebaseClient, close_shared_clients, shared, shared_client
from lakebase_provider.core.errors import LakebaseError
from lakebase_provider.core.errors.client_names import Names
from lakebase_provider.local import LocalLakebase


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    close_shared_clients()
    shared._shared.clear()
    shared._shared_tokens.clear()
    yield
    close_shared_clients()


def test_one_client_for_one_configuration(lakebase_env: LocalLakebase) -> None:
    assert shared_client(lakebase_env.config()) is shared_client(lakebase_env.config())
    assert shared_client(lakebase_env.config()) is not shared_client(lakebase_env.config(max_size=1))


def test_a_token_is_shared_where_nothing_of_it_differs(lakebase_env: LocalLakebase) -> None:
    for name in ("one", "two", "three"):
        with shared_client(lakebase_env.config(application_name=name)).connection() as connection:
            assert connection.execute("SHOW application_name").fetchone() == (name,)
    assert lakebase_env.admin.counters().mints == 1


def test_two_principals_on_one_endpoint_never_share_a_token(lakebase_env: LocalLakebase) -> None:
    other = lakebase_env.admin.add_principal()
    config = lakebase_env.config(user=other.name, client_id=other.name, client_secret=other.client_secret)
    clients = [shared_client(lakebase_env.config()), shared_client(config)]
    assert len({client.tokens.get().fingerprint for client in clients}) == 2
    for client, user in zip(clients, (lakebase_env.env()["PGUSER"], other.name), strict=True):
        with client.connection() as connection:
            assert connection.execute("SELECT current_user").fetchone() == (user,)


def test_closing_shared_clients_keeps_their_tokens(lakebase_env: LocalLakebase) -> None:
    for _ in range(2):
        with shared_client(lakebase_env.config()).connection():
            pass
        close_shared_clients()
    assert (lakebase_env.admin.counters().logins, lakebase_env.admin.counters().mints) == (2, 1)


def test_errors_about_objects_and_on_branches_say_whose_they_are(lakebase_env: LocalLakebase) -> None:
    with shared_client(lakebase_env.config(application_name="a"), "the orders") as client:
        with pytest.raises(LakebaseError) as caught:
            client.workspace.branches.get("absent")
        assert caught.value.message.count("(the orders)") == 1
        with pytest.raises(LakebaseError) as unknown:
            client.workspace.endpoints.locate("ep-absent-12345678")
        assert unknown.value.message.count("(the orders)") == 1
        with client.branches.lease(run_id="names", ttl=600) as lease:
            lakebase_env.admin.login_fault("not_a_jwt")
            with pytest.raises(LakebaseError) as refused:
                lease.client.connect(timeout=5)
            lakebase_env.admin.clear_faults()
        assert refused.value.message.count("(the orders)") == 1
    # The token is shared, and so is what refuses it, but not the names.
    with shared_client(lakebase_env.config(application_name="b"), "the stock") as other:
        assert other.tokens is client.tokens
        other.tokens.invalidate(other.tokens.get().fingerprint)
        lakebase_env.admin.fault("POST", "/api/2.0/postgres/credentials", status=403, message="no")
        with pytest.raises(LakebaseError) as unminted:
            other.connect(timeout=5)
        assert "(the stock)" in unminted.value.message
        assert "the orders" not in unminted.value.message


def test_without_credentials_the_objects_say_who_has_none(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = lakebase_env.config(auth="password", password="p", client_id=None, client_secret=None)
    for name in [*lakebase_env.env(), "DATABRICKS_CONFIG_FILE"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    client = LakebaseClient(config)
    client.known_as("the orders")
    with pytest.raises(LakebaseError, match=r"\(the orders\)"):
        _ = client.workspace


def test_a_shared_token_of_an_endpoint_that_is_looked_up_names_no_other(lakebase_env: LocalLakebase) -> None:
    # Minting asks for the endpoint's name first, by the way of whichever client came first.
    uid = LakebaseClient(lakebase_env.config()).workspace.endpoints.get("primary").uid
    first, second = (
        shared_client(lakebase_env.config(endpoint=uid, application_name=name), f"the {name}")
        for name in ("orders", "stock")
    )
    assert first.tokens is second.tokens
    lakebase_env.admin.fault("GET", "/api/2.0/postgres/projects", status=403, message="no")
    with pytest.raises(LakebaseError) as caught:
        second.connect(timeout=5)
    assert caught.value.message.endswith("(the stock)")
    assert "the orders" not in caught.value.message


def test_an_error_that_was_told_already_gets_the_names_that_came_later() -> None:
    names, error = Names(), LakebaseError("It is closed.", remedy="Open it.")
    names.add("the orders")
    names.tell(error)
    names.add("the stock")
    for _ in range(2):
        names.tell(error)
    assert error.message == "It is closed (the orders or the stock)."
