"""Threads that work for a caller log as the caller does."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.base import threads
from lakebase_provider.core.config import LakebaseConfig
from lakebase_provider.core.errors import LockTimeoutError
from lakebase_provider.core.workspace.workspace import ControlPlane
from lakebase_provider.local import LocalLakebase
from tests.eventually import BUSY

TASK = contextvars.ContextVar("TASK", default="none")
CREDENTIALS = "/api/2.0/postgres/credentials"
ENDPOINT = "/api/2.0/postgres/projects/local/branches/production/endpoints/primary"


class Tasks(logging.Handler):
    """As Airflow's and structlog's processors do, notes whose each line is."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.of_thread: dict[str, set[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.of_thread.setdefault(str(record.threadName), set()).add(TASK.get())


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    logger, handler = logging.getLogger("lakebase_provider"), Tasks()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    TASK.set("mine")
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)
    TASK.set("none")


def test_minting_and_resolving_are_the_callers(lakebase_env: LocalLakebase, tasks: Tasks) -> None:
    LakebaseClient(lakebase_env.config(host=None)).connect().close()
    assert tasks.of_thread["lakebase-mint"] == {"mine"}
    assert tasks.of_thread["lakebase-resolve"] == {"mine"}


def test_a_connection_opened_beside_is_who_waits_for_its(lakebase_env: LocalLakebase, tasks: Tasks) -> None:
    with LakebaseClient(lakebase_env.config(max_size=2)) as client:
        with client.connection():
            TASK.set("another")
            with client.connection():
                pass
        TASK.set("mine")
        worker = next(name for name in tasks.of_thread if name.endswith("-worker"))
        assert tasks.of_thread[worker] == {"another"}


def test_who_holds_a_lock_is_asked_as_the_caller(lakebase_env: LocalLakebase, tasks: Tasks) -> None:
    with (
        LakebaseClient(lakebase_env.config(max_size=2)) as holder,
        LakebaseClient(lakebase_env.config(lock_timeout=0.2)) as client,
        holder.connection() as held,
    ):
        held.execute("SELECT pg_advisory_xact_lock(4711)")
        with pytest.raises(LockTimeoutError):
            client.run_transaction(lambda c: c.execute("SELECT pg_advisory_xact_lock(4711)"))
    assert set().union(*tasks.of_thread.values()) == {"mine"}
    assert len(tasks.of_thread) >= 3, "nobody was asked by a thread"


def test_parts_of_an_unload_are_the_callers(
    lakebase_env: LocalLakebase, tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakebase_provider.core.bulk.unload import unload

    seen: set[tuple[bool, str]] = set()
    written = unload._written

    def noting(*arguments: object) -> int:
        seen.add((threading.current_thread() is threading.main_thread(), TASK.get()))
        return written(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(unload, "_written", noting)
    with LakebaseClient(lakebase_env.config(max_size=2)) as client:
        client.unload(
            "SELECT i FROM generate_series(1, 10) AS t (i)", tmp_path / "parts", "csv", parallel=2, by="i"
        )
    assert seen == {(False, "mine")}


def test_as_many_requests_at_once_as_there_may_be_keep_their_sockets(
    lakebase_env: LocalLakebase, caplog: pytest.LogCaptureFixture
) -> None:
    """urllib3 warns of "Connection pool is full, discarding connection" otherwise, in each triggerer."""
    config: LakebaseConfig = lakebase_env.config()
    plane = ControlPlane(config)
    plane.current_user_name()
    lakebase_env.admin.fault("GET", ENDPOINT, hang=0.5)
    threads = [threading.Thread(target=plane.endpoint, args=(config.endpoint,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [record for record in caplog.records if record.name.startswith("urllib3")]
    assert [record.getMessage() for record in told if record.levelno >= logging.WARNING] == []


def test_a_signal_waits_for_work_that_goes_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    begun, goes_on, done = threading.Event(), threading.Event(), []
    main = threading.main_thread().ident or 0

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        if not goes_on.is_set():
            goes_on.set()
            raise KeyboardInterrupt

    def interrupt() -> None:
        begun.wait()
        signal.pthread_kill(main, signal.SIGINT)
        # One that comes as a wait begins, is handled when that ends, which here is never.
        while not goes_on.wait(0.05):
            signal.pthread_kill(main, signal.SIGINT)

    def work() -> None:
        begun.set()
        goes_on.wait()
        done.append("done")

    def fail() -> None:
        work()
        raise ValueError("lost")

    former = signal.signal(signal.SIGINT, interrupted)
    try:
        for working in (work, fail):
            begun.clear()
            goes_on.clear()
            threading.Thread(target=interrupt).start()
            with pytest.raises(KeyboardInterrupt):
                threads.to_its_end(working, "work")
    finally:
        signal.signal(signal.SIGINT, former)
    assert done == ["done", "done"]
    # The interrupt is raised, and what would be lost by that is told.
    assert "The thread work failed: lost" in caplog.text
    with pytest.raises(ValueError, match="mine"):
        threads.to_its_end(lambda: int("mine"), "work")
    assert threads.to_its_end(lambda: 1, "work") == 1


def test_wherever_a_signal_comes_work_is_whole_or_has_not_begun() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.core.base.interrupted_work"],
        capture_output=True,
        text=True,
        timeout=10 * BUSY,
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) > 20


@pytest.mark.usefixtures("signals_are_default")
def test_blocks_that_unwind_on_sigterm_may_overlap() -> None:
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        for block in (first, second):
            block.enter_context(threads.unwinding_on_sigterm())
        first.close()
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("signals_are_default")
def test_sigterm_comes_again_when_a_finalizer_has_lost_it(capsys: pytest.CaptureFixture[str]) -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        with threads.unwinding_on_sigterm():
            Finalized()
            threading.Event().wait(10 * BUSY)

    before = sys.unraisablehook
    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == 143
    assert sys.unraisablehook is before
    assert capsys.readouterr().err == ""
