"""Endpoints: other sizes for a while, put back whatever happens; read replicas; found by uid or host."""

from __future__ import annotations

import json
import operator
import os
import re
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lakebase_provider.cli.command import main
from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import (
    ConfigError,
    ControlPlaneError,
    EndpointDisabledError,
    EndpointNotFoundError,
    OperationTimeoutError,
    ProjectBusyError,
)
from lakebase_provider.core.workspace.objects.endpoints import Endpoint, Endpoints
from lakebase_provider.core.workspace.objects.kept_changes import Kept, left_behind
from lakebase_provider.core.workspace.objects.workspace_objects import WorkspaceObjects
from lakebase_provider.local import LocalLakebase
from tests.eventually import eventually

BUSY = "Another operation on the project is still running"
PRIMARY = "projects/local/branches/production/endpoints/primary"

#: Resizes the endpoint, says so, and waits to be killed.
RUN = f"""
import sys
from pathlib import Path
from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.workspace.objects.endpoints import Endpoints
Endpoints.sizes_folder = Path(sys.argv[1])
with LakebaseClient(LakebaseConfig.from_env()) as client:
    with client.workspace.endpoints.resized("{PRIMARY}", min_cu=8, max_cu=8, suspend_timeout=600):
        print("resized", flush=True)
        sys.stdin.read()
"""


def size(endpoint: Endpoint) -> tuple[float | None, float | None, float | None]:
    return endpoint.min_cu, endpoint.max_cu, endpoint.suspend_timeout


def killed_run(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LAKEBASE_ALLOW_LOOPBACK": "1"},
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "resized\n"
        run.send_signal(signal.SIGKILL)


@pytest.fixture
def folder(lake: LocalLakebase) -> Path:
    assert Endpoints.sizes_folder is not None
    return Endpoints.sizes_folder


def test_the_earlier_size_is_put_back(workspace: WorkspaceObjects, folder: Path) -> None:
    before = workspace.endpoints.update(PRIMARY, no_suspension=True)
    with workspace.endpoints.resized(PRIMARY, min_cu=4, max_cu=8, suspend_timeout=300) as resized:
        assert size(resized) == (4, 8, 300)
    assert size(workspace.endpoints.get("primary")) == size(before)
    assert list(folder.glob("*.json")) == []


def test_the_earlier_size_is_put_back_after_an_error(workspace: WorkspaceObjects) -> None:
    before = workspace.endpoints.get(PRIMARY)
    with pytest.raises(ZeroDivisionError), workspace.endpoints.resized(PRIMARY, max_cu=8):
        _ = 1 / 0
    with (
        pytest.raises(ControlPlaneError, match="INVALID_PARAMETER_VALUE"),
        workspace.endpoints.resized(PRIMARY, min_cu=0.5, max_cu=64),
    ):
        raise AssertionError("never comes here")
    assert size(workspace.endpoints.get(PRIMARY)) == size(before)


def test_of_overlapping_blocks_the_last_puts_back(workspace: WorkspaceObjects) -> None:
    endpoints = workspace.endpoints
    before = endpoints.get(PRIMARY)
    first, second = endpoints.resized(PRIMARY, max_cu=4), endpoints.resized(PRIMARY, max_cu=8)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert endpoints.get(PRIMARY).max_cu == 8
    second.__exit__(None, None, None)
    assert size(endpoints.get(PRIMARY)) == size(before)


def test_of_nested_blocks_the_outer_puts_back(workspace: WorkspaceObjects) -> None:
    endpoints = workspace.endpoints
    before = endpoints.get(PRIMARY)
    with endpoints.resized(PRIMARY, max_cu=4), endpoints.resized(PRIMARY, min_cu=2, suspend_timeout=300):
        assert size(endpoints.get(PRIMARY)) == (2, 4, 300)
    assert size(endpoints.get(PRIMARY)) == size(before)


def test_blocks_of_many_threads_leave_the_size_that_was_before(lake: LocalLakebase) -> None:
    with LakebaseClient(lake.config()) as client:
        before = client.workspace.endpoints.get(PRIMARY)

    def resize(number: int) -> None:
        with LakebaseClient(lake.config()) as client:
            for _ in range(2):
                with client.workspace.endpoints.resized(PRIMARY, max_cu=2 + number):
                    pass

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(resize, range(4)))
    with LakebaseClient(lake.config()) as client:
        assert size(client.workspace.endpoints.get(PRIMARY)) == size(before)


def test_a_block_that_begins_as_another_ends_keeps_what_was_before_both(
    workspace: WorkspaceObjects, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints = workspace.endpoints
    before = endpoints.get(PRIMARY)
    first, second = endpoints.resized(PRIMARY, max_cu=4), endpoints.resized(PRIMARY, max_cu=8)
    first.__enter__()
    enter = Kept.enter

    def then_end(kept: Kept, earlier: Any) -> None:
        # Between the second's look at the endpoint and its entry.
        first.__exit__(None, None, None)
        enter(kept, earlier)

    monkeypatch.setattr(Kept, "enter", then_end)
    second.__enter__()
    assert endpoints.get(PRIMARY).max_cu == 8
    second.__exit__(None, None, None)
    assert size(endpoints.get(PRIMARY)) == size(before)
    assert list(folder.glob("*.json")) == []


def test_the_remedy_of_a_disabled_endpoint_enables_it(
    lake: LocalLakebase, on_production: LakebaseClient, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.admin.disable_endpoint()
    with pytest.raises(EndpointDisabledError) as caught:
        on_production.connect()
    [call] = re.findall(r"client\.[\w.]+(?=\()", caught.value.remedy)
    [command] = re.findall(r"`lakebase ([^`]+)`", caught.value.remedy)
    assert operator.attrgetter(call.removeprefix("client."))(on_production)(PRIMARY).disabled is False
    on_production.connect().close()
    on_production.workspace.endpoints.suspend(PRIMARY)
    assert main([*command.split(), PRIMARY]) == 0
    on_production.connect().close()
    capsys.readouterr()


def test_after_a_kill_the_next_run_puts_back_what_was_before_it(
    lake: LocalLakebase, workspace: WorkspaceObjects, folder: Path
) -> None:
    before = workspace.endpoints.get(PRIMARY)
    killed_run(folder)
    assert size(workspace.endpoints.get(PRIMARY)) == (8, 8, 600)
    with workspace.endpoints.resized(PRIMARY, max_cu=10):
        pass
    assert size(workspace.endpoints.get(PRIMARY)) == size(before)
    killed_run(folder)
    assert workspace.endpoints.put_sizes_back() == (PRIMARY,)
    assert size(workspace.endpoints.get(PRIMARY)) == size(before)
    assert workspace.endpoints.put_sizes_back() == ()


def test_a_size_that_could_not_be_put_back_stays_kept(
    lake: LocalLakebase, workspace: WorkspaceObjects, folder: Path
) -> None:
    before = workspace.endpoints.get(PRIMARY)
    with (
        pytest.raises(ProjectBusyError),
        workspace.endpoints.resized(PRIMARY, max_cu=8, timeout=3.0),
    ):
        lake.admin.fault(
            "PATCH", "/api/*", status=409, message="Another operation on the project is still running"
        )
    assert workspace.endpoints.get(PRIMARY).max_cu == 8
    [kept] = folder.glob("*.json")
    assert json.loads(kept.read_text())["earlier"]["max_cu"] == before.max_cu
    lake.admin.clear_faults()
    assert workspace.endpoints.put_sizes_back() == (PRIMARY,)
    assert size(workspace.endpoints.get(PRIMARY)) == size(before)


def test_one_size_that_cannot_be_put_back_does_not_stop_the_others(
    workspace: WorkspaceObjects, folder: Path
) -> None:
    before = workspace.endpoints.get(PRIMARY)
    killed_run(folder)
    [left] = folder.glob("*.json")
    workspace.branches.create("ci-1", ttl=3600)
    other = workspace.endpoints.get("projects/local/branches/ci-1/endpoints/primary")
    content = json.loads(left.read_text())
    content |= {"name": other.name, "uid": other.uid, "earlier": {"owner": 1}}
    bad = Kept(content["workspace"], other.name, str(other.uid), folder).path
    bad.write_text(json.dumps(content))
    with pytest.raises(
        ConfigError, match=f"'owner'.* {other.name} was before stays in {re.escape(str(bad))}"
    ):
        workspace.endpoints.put_sizes_back()
    assert size(workspace.endpoints.get(PRIMARY)) == size(before)
    assert list(folder.glob("*.json")) == [bad]


def test_a_block_that_begins_while_sizes_are_put_back_keeps_its_own(
    workspace: WorkspaceObjects, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = workspace.endpoints.get(PRIMARY)
    killed_run(folder)
    block = workspace.endpoints.resized(PRIMARY, max_cu=10)

    def then_begin(workspace_key: str, folder: Path) -> list[Kept]:
        found = list(left_behind(workspace_key, folder))
        block.__enter__()
        return found

    monkeypatch.setattr("lakebase_provider.core.workspace.objects.kept_changes.left_behind", then_begin)
    assert workspace.endpoints.put_sizes_back() == ()
    assert workspace.endpoints.get(PRIMARY).max_cu == 10
    block.__exit__(None, None, None)
    assert size(workspace.endpoints.get(PRIMARY)) == size(before)


def test_an_error_of_the_block_is_not_replaced_by_that_of_putting_back(
    lake: LocalLakebase, workspace: WorkspaceObjects, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        lake.admin.fault("PATCH", "/api/*", status=400, message="not now")
        _ = 1 / 0

    block = workspace.endpoints.resized(PRIMARY, max_cu=8, timeout=30.0)
    with pytest.raises(ZeroDivisionError) as caught, block:
        fail()
    told = caplog.text + "".join(getattr(caught.value, "__notes__", [caplog.text]))
    assert told.count(f"The earlier size of {PRIMARY} was not put back: ") == 2
    assert told.count("Run 'lakebase endpoints put-sizes-back' on this machine") == 2
    lake.admin.clear_faults()
    with (
        pytest.raises(ControlPlaneError, match="put-sizes-back"),
        workspace.endpoints.resized(PRIMARY, max_cu=8),
    ):
        lake.admin.fault("PATCH", "/api/*", status=400, message="not now")
    lake.admin.clear_faults()
    assert workspace.endpoints.put_sizes_back() == (PRIMARY,)


def test_nothing_is_resized_that_could_not_be_put_back(
    lake: LocalLakebase, workspace: WorkspaceObjects, folder: Path
) -> None:
    folder.write_text("no folder")
    lake.admin.reset_counters()
    with pytest.raises(ConfigError, match="cannot be kept"), workspace.endpoints.resized(PRIMARY, max_cu=8):
        raise AssertionError("never comes here")
    assert {one.method for one in lake.admin.requests() if "/postgres/" in one.path} == {"GET"}


def test_another_endpoint_of_the_same_name_keeps_its_size(
    lake: LocalLakebase, workspace: WorkspaceObjects, folder: Path
) -> None:
    workspace.branches.create("ci-1", ttl=3600)
    name = "projects/local/branches/ci-1/endpoints/primary"
    with workspace.endpoints.resized(name, max_cu=8):
        [kept] = folder.glob("*.json")
        text = kept.read_text().replace(f'"pid": {os.getpid()}', '"pid": 999999999')
        workspace.branches.ensure("ci-1", ttl=3600, on_exists="recreate")
    size_now = size(workspace.endpoints.get(name))
    kept.write_text(text)
    workspace.branches.ensure("ci-1", ttl=3600, on_exists="recreate")
    assert workspace.endpoints.put_sizes_back() == ()
    assert list(folder.glob("*.json")) == []
    assert size_now[0] == workspace.endpoints.get(name).min_cu


def test_a_replica_is_read_from_and_refuses_writes(
    lake: LocalLakebase, on_production: LakebaseClient
) -> None:
    with on_production.connection() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS replicated AS SELECT 1 AS n")
    replica = on_production.workspace.endpoints.create("reader")
    assert on_production.workspace.endpoints.wait_ready("reader").endpoint_type == "READ_ONLY"
    with LakebaseClient(on_production.config.replace(endpoint="reader")) as reader:
        assert reader.target().host == replica.host

        def rows() -> list[tuple[int]]:
            with reader.connection() as connection:
                return list(connection.execute("SELECT n FROM replicated").fetchall())

        eventually(lambda: rows() == [(1,)])
        with (
            pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
            reader.connection() as connection,
        ):
            connection.execute("INSERT INTO replicated VALUES (2)")
    on_production.workspace.endpoints.delete("reader")
    with on_production.connection() as connection:
        connection.execute("DROP TABLE replicated")


def test_a_change_that_goes_on_is_waited_for(lake: LocalLakebase, workspace: WorkspaceObjects) -> None:
    lake.admin.set(pending_seconds=100.0)
    workspace.endpoints.update(PRIMARY, max_cu=8)
    with pytest.raises(OperationTimeoutError, match=r"Waiting for .*/primary did not end") as caught:
        workspace.endpoints.wait_ready(PRIMARY, timeout=0.3)
    assert caught.value.name == PRIMARY
    lake.admin.advance(101)
    assert workspace.endpoints.wait_ready(PRIMARY).max_cu == 8


def test_an_endpoint_is_known_by_uid_and_host_too(lake: LocalLakebase, workspace: WorkspaceObjects) -> None:
    workspace.branches.create("ci-1", ttl=3600)
    [made] = workspace.endpoints.list("ci-1")
    assert made.uid is not None
    assert made.host is not None
    with LakebaseClient(lake.config().replace(endpoint=made.uid, host=None)) as client:
        assert client.workspace.endpoints.locate(made.uid) == made
        assert client.workspace.endpoints.locate(made.host.upper()) == made
        assert client.target().host == made.host
        client.connect().close()
        with pytest.raises(EndpointNotFoundError, match="uid or the host 'ep-none'"):
            client.workspace.endpoints.locate("ep-none")


def test_what_is_kept_lies_in_folders_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "lakebase-provider" / "endpoint-sizes"
    kept = Kept("w", "projects/p/branches/b/endpoints/e", "uid", folder)
    before = os.umask(0)
    try:
        kept.enter(dict)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(place.stat().st_mode) for place in (folder, folder.parent)] == [0o700, 0o700]
    kept.leave()
    for place in (folder, folder.parent):
        for mode in (0o770, 0o702):
            place.chmod(mode)
            for use in (lambda: kept.enter(dict), lambda: list(left_behind("w", folder))):
                with pytest.raises(ConfigError, match="open to others") as caught:
                    use()
                assert "XDG_STATE_HOME" in caught.value.remedy
        place.chmod(0o700)
        moved = place.rename(tmp_path / "elsewhere")
        place.symlink_to(moved)
        with pytest.raises(ConfigError, match="not the expected kind"):
            list(left_behind("w", folder))
        place.unlink()
        moved.rename(place)
    folder.parent.chmod(0o755)  # as an earlier version has made it
    assert [left.name for left in left_behind("w", folder)] == [kept.name]
