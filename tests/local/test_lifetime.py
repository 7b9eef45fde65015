"""Nothing outlives a local Lakebase, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase, LocalLakebaseError
from tests.eventually import eventually

PARENT = """
import sys
from lakebase_provider.local import LocalLakebase
lake = LocalLakebase()
lake.start()
print(lake.pid, lake.running.folder, flush=True)
sys.stdin.read()
"""


def ps(*options: str) -> str:
    return subprocess.run(["/bin/ps", *options], capture_output=True, text=True).stdout


def processes_naming(folder: str) -> list[str]:
    """Command lines of all running processes that mention the folder."""
    lines = [line for line in ps("-ww", "-eo", "pid,stat,args").splitlines() if folder in line]
    return [line for line in lines if not line.split()[1].startswith("Z")]


def assert_nothing_is_left(pid: int, folder: str) -> None:
    eventually(lambda: not Path(folder).exists())
    eventually(lambda: not processes_naming(folder))
    eventually(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    state = ps("-o", "stat=", "-p", str(pid))
    return bool(state.strip()) and not state.startswith("Z")


@pytest.fixture
def lake() -> Any:
    with LocalLakebase(max_connections=20) as lake:
        yield lake


def test_stop_leaves_nothing_and_start_works_again(lake: LocalLakebase) -> None:
    pid, folder = lake.pid, lake.running.folder
    assert Path(folder).exists()
    assert processes_naming(folder)
    lake.stop()
    assert not Path(folder).exists()
    assert_nothing_is_left(pid, folder)
    lake.stop()
    with pytest.raises(LocalLakebaseError, match="not been started"):
        lake.env()
    lake.start()
    assert lake.admin.execute("SHOW max_connections") == [("20",)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_nothing(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        assert processes_naming(folder)
        parent.send_signal(number)
    assert_nothing_is_left(int(pid), folder)


def test_a_killed_server_leaves_nothing(lake: LocalLakebase) -> None:
    pid, folder = lake.pid, lake.running.folder
    os.kill(pid, signal.SIGKILL)
    assert_nothing_is_left(pid, folder)
    with pytest.raises(LocalLakebaseError, match="does not answer"):
        lake.admin.counters()


def test_a_parent_killed_while_starting_leaves_nothing() -> None:
    # A short path: sockets have little room for one.
    temporary = Path(tempfile.mkdtemp())
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    # As soon as its folder appears, it is starting initdb, or about to.
    eventually(lambda: any(temporary.glob("lakebase-*/postgres")))
    parent.kill()
    parent.communicate()
    eventually(lambda: not any(temporary.glob("lakebase-*")))
    # The last of them ends after it has removed the folder.
    eventually(lambda: not processes_naming(str(temporary)))
    temporary.rmdir()


@pytest.mark.parametrize("name", ["a blank", "it's", "back\\slash", "a,comma", 'a"quote', "ü"])
def test_the_temporary_folders_name_may_be_of_any_kind(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A short path: sockets have little room for one.
    above = Path(tempfile.mkdtemp())
    temporary = above / name
    temporary.mkdir()
    for folder in (above, temporary):
        folder.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(temporary))
    with LocalLakebase(max_connections=20) as lake:
        assert lake.admin.execute("SELECT 1") == [(1,)]
        with psycopg.connect(lake.superuser_dsn) as connection:
            assert connection.info.port == 5432
        with LakebaseClient(lake.config()).connect(timeout=10) as connection:
            assert connection.pgconn.ssl_in_use
    temporary.rmdir()
    above.rmdir()


def test_a_dead_postgres_ends_the_server(lake: LocalLakebase) -> None:
    pid, folder = lake.pid, lake.running.folder
    postgres = int(Path(folder, "postgres/data/postmaster.pid").read_text().split()[0])
    os.kill(postgres, signal.SIGKILL)
    assert_nothing_is_left(pid, folder)


def test_a_forked_child_does_not_stop_its_parents_server(lake: LocalLakebase) -> None:
    child = os.fork()
    if child == 0:
        lake.stop()
        os._exit(0)
    os.waitpid(child, 0)
    assert lake.admin.ping() == lake.pid


def test_the_context_manager_stops_after_an_error() -> None:
    seen: list[tuple[int, str]] = []

    def fail() -> None:
        with LocalLakebase() as lake:
            seen.append((lake.pid, lake.running.folder))
            raise RuntimeError("the test's own")

    with pytest.raises(RuntimeError, match="the test's own"):
        fail()
    assert_nothing_is_left(*seen[0])


def test_several_at_once() -> None:
    lakes = [LocalLakebase() for _ in range(3)]
    threads = [threading.Thread(target=lake.start) for lake in lakes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({lake.port for lake in lakes} | {lake.http_port for lake in lakes}) == 6
        assert len({lake.client_id for lake in lakes}) == 3
        # The token of one opens no other.
        for lake in lakes:
            lake.admin.set_native_password("reporter", f"of {lake.port}")
        for lake in lakes:
            for other in lakes:
                accepted = _connects(other, f"of {lake.port}")
                assert accepted == (lake is other)
    finally:
        for lake in lakes:
            lake.stop()


def _connects(lake: LocalLakebase, password: str) -> bool:
    try:
        psycopg.connect(
            host="localhost",
            port=lake.port,
            user="reporter",
            password=password,
            dbname="postgres",
            sslmode="verify-full",
            sslrootcert=lake.ca_path,
        ).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize("option", ["port", "http_port"])
def test_a_port_in_use_is_one_clear_line(lakebase_server: LocalLakebase, option: str) -> None:
    taken = lakebase_server.port
    second = LocalLakebase(**{option: taken})  # type: ignore[arg-type]
    with pytest.raises(
        LocalLakebaseError, match=rf"Port {taken} on 127\.0\.0\.1 is already in use"
    ) as caught:
        second.start()
    assert option in caught.value.remedy
    assert "\n" not in caught.value.message


def test_a_missing_package_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if `pip install lakebase-provider` had been run without [local].
    absent = 'raise ModuleNotFoundError("No module named uvicorn", name="uvicorn")'
    (tmp_path / "uvicorn.py").write_text(absent)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(LocalLakebaseError, match="needs the package uvicorn") as caught:
        LocalLakebase().start()
    assert "lakebase-provider[local]" in caught.value.remedy


def test_no_secret_in_repr_or_command_line(lake: LocalLakebase) -> None:
    secrets = [lake.client_secret, lake.pat, lake.running.admin_key]
    listing = ps("-ww", "-eo", "args")
    principal = lake.admin.add_principal()
    assert principal.client_secret is not None
    shown = f"{lake!r} {lake.running!r} {lake.admin!r} {principal!r} {listing}"
    for secret in (*secrets, principal.client_secret):
        assert secret not in shown


def test_config_for_the_core(lake: LocalLakebase) -> None:
    config = lake.config(database="postgres")
    assert (config.port, config.database, config.user) == (lake.port, "postgres", lake.client_id)
