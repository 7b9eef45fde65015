"""Tokens that the processes of one host share."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import pytest

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.errors import ControlPlaneUnavailableError
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.core.tokens.shared_store import SharedTokens, default_folder, store_key
from lakebase_provider.core.tokens.token import Token
from lakebase_provider.local import LocalLakebase
from tests.core.fake_clock import FakeClock
from tests.eventually import eventually

KEY = "k" * 64
LIFETIME = 3600.0


class CountingMinter:
    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None

    def mint(self, clock: Clock) -> Token:
        self.calls += 1
        if self.error is not None:
            raise self.error
        now = clock.wall()
        return Token(f"canary-{self.calls}", now + LIFETIME, now, clock.elapsed())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


@pytest.fixture
def minter() -> CountingMinter:
    return CountingMinter()


def shared(minter: CountingMinter, folder: Path) -> SharedTokens:
    """As another process would have it."""
    return SharedTokens(minter, KEY, folder, lock_timeout=0.2)


def token_file(folder: Path) -> Path:
    return folder / f"{KEY}.json"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_one_mints_and_the_others_read(clock: FakeClock, minter: CountingMinter, folder: Path) -> None:
    first = shared(minter, folder).mint(clock)
    clock.advance(600)
    second = shared(minter, folder).mint(clock)
    assert second == first
    assert minter.calls == 1


def test_only_the_owner_can_read_it_and_the_names_say_nothing(
    clock: FakeClock, minter: CountingMinter, folder: Path
) -> None:
    before = os.umask(0)
    try:
        shared(minter, folder).mint(clock)
    finally:
        os.umask(before)
    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.iterdir()} == {
        f"{KEY}.json": 0o600,
        f"{KEY}.lock": 0o600,
    }


def test_who_asks_again_gets_another_token(clock: FakeClock, minter: CountingMinter, folder: Path) -> None:
    one, other = shared(minter, folder), shared(minter, folder)
    assert one.mint(clock) == other.mint(clock)
    # The one renews; the other, whose token is stale or refused too, finds the new one.
    assert one.mint(clock).reveal() == other.mint(clock).reveal() == "canary-2"
    assert minter.calls == 2


def test_a_token_that_is_about_to_expire_is_not_taken(
    clock: FakeClock, minter: CountingMinter, folder: Path
) -> None:
    shared(minter, folder).mint(clock)
    clock.advance(LIFETIME - 119)
    assert shared(minter, folder).mint(clock).reveal() == "canary-2"


def test_neither_a_clock_set_back_nor_a_restart_revives_a_token(
    clock: FakeClock, minter: CountingMinter, folder: Path
) -> None:
    clock.advance(10_000)
    shared(minter, folder).mint(clock)
    clock.advance(LIFETIME)
    clock.now -= LIFETIME
    assert shared(minter, folder).mint(clock).reveal() == "canary-2"
    clock.passed = 5.0
    assert shared(minter, folder).mint(clock).reveal() == "canary-3"
    content = json.loads(token_file(folder).read_text())
    token_file(folder).write_text(json.dumps({**content, "boot": "another"}))
    assert shared(minter, folder).mint(clock).reveal() == "canary-4"


@pytest.mark.parametrize("content", ["", "{", "[]", '"canary"', '{"token": 1}', "x" * 70_000, "[" * 60_000])
def test_a_file_that_is_no_token_is_replaced(
    clock: FakeClock, minter: CountingMinter, folder: Path, content: str
) -> None:
    shared(minter, folder).mint(clock)
    token_file(folder).write_text(content)
    assert shared(minter, folder).mint(clock).reveal() == "canary-2"
    assert shared(minter, folder).mint(clock).reveal() == "canary-2"


@pytest.mark.parametrize(
    "number", ["1" + "0" * 400, "Infinity", "-Infinity", "NaN", "1e308", "-1e308", "1e20"]
)
def test_no_number_in_the_file_does_more_than_cost_a_mint(
    clock: FakeClock, minter: CountingMinter, folder: Path, number: str
) -> None:
    shared(minter, folder).mint(clock)
    sound = json.loads(token_file(folder).read_text())
    names = ("expires_at", "minted_at", "minted_elapsed", "skew")
    for wrong in [(name,) for name in names] + [names[:2], (names[0], names[3]), names]:
        content = json.dumps({**sound, **dict.fromkeys(wrong, "?")}).replace('"?"', number)
        token_file(folder).write_text(content)
        calls = minter.calls
        assert TokenProvider(shared(minter, folder), clock=clock).get().reveal() == f"canary-{calls + 1}"


@pytest.mark.parametrize("value", ["a\0b", "a\nb", "\x1b[2J", "\ud800", "a b", "é", "", None, 1, ["a"]])
def test_a_text_that_cannot_be_sent_is_no_token(
    clock: FakeClock, minter: CountingMinter, folder: Path, value: object
) -> None:
    shared(minter, folder).mint(clock)
    sound = json.loads(token_file(folder).read_text())
    token_file(folder).write_text(json.dumps({**sound, "token": value}))
    assert shared(minter, folder).mint(clock).reveal() == "canary-2"


def spoil_by_link(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere.json"
    token_file(folder).rename(elsewhere)
    token_file(folder).symlink_to(elsewhere)


def spoil_by_pipe(folder: Path) -> None:
    token_file(folder).unlink()
    os.mkfifo(token_file(folder), 0o600)


@pytest.mark.parametrize("spoil", [spoil_by_link, spoil_by_pipe, lambda f: token_file(f).chmod(0o644)])
def test_a_file_that_another_user_could_have_written_is_not_read(
    clock: FakeClock, minter: CountingMinter, folder: Path, spoil: object
) -> None:
    shared(minter, folder).mint(clock)
    assert callable(spoil)
    spoil(folder)
    assert shared(minter, folder).mint(clock).reveal() == "canary-2"
    # It was replaced, not written to.
    assert stat.S_ISREG(token_file(folder).lstat().st_mode)
    assert mode(token_file(folder)) == 0o600
    assert shared(minter, folder).mint(clock).reveal() == "canary-2"


def test_a_folder_that_is_open_to_others_is_not_used(
    clock: FakeClock, minter: CountingMinter, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    tokens = shared(minter, folder)
    assert [tokens.mint(clock).reveal() for _ in range(2)] == ["canary-1", "canary-2"]
    assert not token_file(folder).exists()
    [warning] = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert "open to others" in warning


def test_a_folder_that_cannot_be_made_costs_a_mint_and_nothing_else(
    clock: FakeClock, minter: CountingMinter, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert shared(minter, tmp_path / "file" / "tokens").mint(clock).reveal() == "canary-1"


def test_who_waits_too_long_for_the_lock_mints_beside_it(
    clock: FakeClock, minter: CountingMinter, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(mode=0o700)
    with filelock.FileLock(folder / f"{KEY}.lock"):
        assert shared(minter, folder).mint(clock).reveal() == "canary-1"
    assert "minting here too" in caplog.text
    assert shared(minter, folder).mint(clock).reveal() == "canary-1"


def test_threads_that_come_at_once_mint_once(clock: FakeClock, minter: CountingMinter, folder: Path) -> None:
    stores = [SharedTokens(minter, KEY, folder) for _ in range(16)]
    barrier = threading.Barrier(len(stores))
    got: list[Token] = []

    def ask(store: SharedTokens) -> None:
        barrier.wait()
        got.append(store.mint(clock))

    threads = [threading.Thread(target=ask, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.reveal() for token in got} == {"canary-1"}
    assert len(got) == 16


def test_a_failed_mint_lets_go_of_the_lock(clock: FakeClock, minter: CountingMinter, folder: Path) -> None:
    minter.error = ControlPlaneUnavailableError("503")
    with pytest.raises(ControlPlaneUnavailableError):
        shared(minter, folder).mint(clock)
    minter.error = None
    with filelock.FileLock(folder / f"{KEY}.lock", timeout=0):
        pass
    assert shared(minter, folder).mint(clock).reveal() == "canary-2"


def test_what_a_killed_writer_left_is_removed(clock: FakeClock, minter: CountingMinter, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / f"{KEY}.abc.tmp").write_text("canary")
    (folder / "another.abc.tmp").touch()
    shared(minter, folder).mint(clock)
    assert {path.name for path in folder.iterdir()} == {f"{KEY}.json", f"{KEY}.lock", "another.abc.tmp"}


def test_a_stale_token_is_renewed_by_one_for_all(
    clock: FakeClock, minter: CountingMinter, folder: Path
) -> None:
    providers = [TokenProvider(shared(minter, folder), clock=clock) for _ in range(5)]
    assert {provider.get().reveal() for provider in providers} == {"canary-1"}
    clock.advance(LIFETIME * 0.85)
    assert {provider.get().reveal() for provider in providers} == {"canary-1"}
    for provider in providers:
        eventually(lambda provider=provider: provider.get().reveal() == "canary-2")  # type: ignore[misc]
    assert minter.calls == 2


def config(**changes: object) -> LakebaseConfig:
    return LakebaseConfig.from_mapping(
        {
            "endpoint": "projects/p/branches/b/endpoints/e",
            "workspace_host": "https://one.databricks.com",
            "client_id": "id",
            "client_secret": "secret-canary",
            **changes,
        }
    )


def test_whatever_a_token_depends_on_makes_another_key() -> None:
    keys = [
        store_key(config()),
        store_key(config(endpoint="projects/p/branches/b/endpoints/f")),
        store_key(config(endpoint=None, instance="e")),
        store_key(config(workspace_host="https://two.databricks.com")),
        store_key(config(client_id="other")),
        store_key(config(client_secret="other")),
        store_key(config(client_id=None, client_secret=None, token="one")),
        store_key(config(client_id=None, client_secret=None, token="two")),
        store_key(config(credential_ttl=300)),
        store_key(config(), [{"permission_set": "READ_ONLY"}]),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)
    # The database and the application do not change the token.
    assert store_key(config(database="d", application_name="a")) == keys[0]


def test_the_folder_is_in_memory_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_folder() == tmp_path / "lakebase-provider"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for useless in ("", "relative", str(tmp_path / "missing")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", useless)
        assert default_folder().name == "tokens"
        assert "lakebase-provider" in str(default_folder())


_CONNECT = """
from lakebase_provider.core import LakebaseClient, LakebaseConfig
LakebaseClient(LakebaseConfig.from_env()).connect().close()
"""


def test_two_processes_mint_once_where_it_is_asked_for(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for expected in (1, 2):
        subprocess.run([sys.executable, "-c", _CONNECT], check=True, timeout=60)
        assert lakebase_env.admin.counters().mints == expected
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("LAKEBASE_CREDENTIAL_STORE", "shared")
    for _ in range(2):
        subprocess.run([sys.executable, "-c", _CONNECT], check=True, timeout=60)
        assert lakebase_env.admin.counters().mints == 3
    assert lakebase_env.admin.counters().logins == 4


def test_two_principals_on_one_endpoint_do_not_share(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    other = lakebase_env.admin.add_principal()
    configs = [
        lakebase_env.config(credential_store="shared"),
        lakebase_env.config(
            credential_store="shared", client_id=other.client_id, client_secret=other.client_secret, user=None
        ),
    ]
    users = set()
    for each in configs:
        with LakebaseClient(each).connect() as connection:
            users.add(connection.execute("SELECT current_user").fetchone())
    assert users == {(lakebase_env.client_id,), (other.client_id,)}
    assert len(list(tmp_path.glob("*/*.json"))) == 2
    assert lakebase_env.admin.counters().refused_logins == 0


def test_a_revoked_token_in_the_store_costs_one_refusal(
    lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    LakebaseClient(lakebase_env.config(credential_store="shared")).connect().close()
    lakebase_env.admin.revoke_tokens()
    for _ in range(2):
        LakebaseClient(lakebase_env.config(credential_store="shared")).connect().close()
    counters = lakebase_env.admin.counters()
    assert (counters.mints, counters.refused_logins, counters.logins) == (2, 1, 3)


def test_without_a_principal_in_the_settings_nothing_is_shared(
    lakebase_env: LocalLakebase,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    client = LakebaseClient(
        lakebase_env.config(
            credential_store="shared", client_id=None, client_secret=None, auth_type="oauth-m2m"
        )
    )
    assert "needs client_id and client_secret" in caplog.text
    assert client.tokens.get()
    assert not list(tmp_path.iterdir())
