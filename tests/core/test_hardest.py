"""The hardest situations for the credential core: many processes, wrong clocks, hanging servers, forks.

Numbered as in the list that the design was held to.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.errors import ConfigError, ControlPlaneTimeoutError, ControlPlaneUnavailableError
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.core.tokens.minters import AutoscalingOAuth
from lakebase_provider.core.tokens.token import Token, TokenPolicy
from lakebase_provider.local import LocalLakebase
from tests.core.fake_clock import FakeClock
from tests.core.fake_workspace import Workspace
from tests.depth import examples
from tests.eventually import BUSY, eventually

CREDENTIALS = "/api/2.0/postgres/credentials"
ENDPOINT = "projects/p/branches/b/endpoints/e"
HOUR = 3600.0


# 1. Many processes and threads share one mint through the store; a killed lock holder holds up nobody.


@pytest.fixture
def store(lakebase_env: LocalLakebase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a token store of this test's own, switched on for all processes that it starts."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("LAKEBASE_CREDENTIAL_STORE", "shared")
    return tmp_path / "lakebase-provider"


def test_32_processes_of_200_threads_share_one_mint_and_then_another(
    lakebase_env: LocalLakebase, store: Path
) -> None:
    command = [sys.executable, "-m", "tests.core.sharing", "32", "200", str(time.time())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None

        def ask(order: str) -> set[str]:
            assert parent.stdin is not None
            assert parent.stdout is not None
            parent.stdin.write(f"{order}\n")
            parent.stdin.flush()
            return set(parent.stdout.readline().split())

        cold = ask("get")
        assert len(cold) == 1
        assert lakebase_env.admin.counters().mints == 1
        # All cross the moment of renewal at once; the workspace's clock goes on with theirs.
        lakebase_env.admin.set_clock_skew(0.85 * HOUR)
        crossing = ask("advance")
        assert len(crossing) == 2
        assert lakebase_env.admin.counters().mints == 2
        assert ask("get") == crossing - cold
        assert lakebase_env.admin.counters().mints == 2
        parent.stdin.close()
        assert parent.wait(60) == 0


_MINT = """
from lakebase_provider.core import LakebaseClient, LakebaseConfig
LakebaseClient(LakebaseConfig.from_env()).tokens.get()
"""


def held(folder: Path) -> bool:
    """Whether somebody holds the store's lock."""
    for path in folder.glob("*.lock"):
        try:
            with filelock.FileLock(path, timeout=0):
                return False
        except filelock.Timeout:
            return True
    return False


def test_a_killed_holder_of_the_stores_lock_holds_up_nobody(lakebase_env: LocalLakebase, store: Path) -> None:
    lakebase_env.admin.fault("POST", CREDENTIALS, hang=300)
    with subprocess.Popen([sys.executable, "-c", _MINT]) as holder:
        eventually(lambda: held(store))
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    lakebase_env.admin.clear_faults()
    start = time.monotonic()
    with LakebaseClient(LakebaseConfig.from_env()) as client:
        client.connect(timeout=10).close()
    assert time.monotonic() - start < 1 + BUSY
    assert not held(store)


# 2. Whatever clocks do, no login sends a token that is about to expire, and nobody mints in a loop.


class Machine:
    """A host whose clock may be wrong, and jump; what is true is `now`."""

    def __init__(self, wrong_by: float) -> None:
        self.now = 1_800_000_000.0
        self.running = 0.0
        self.wrong_by = wrong_by
        self.slept: list[float] = []

    def wall(self) -> float:
        return self.now + self.wrong_by

    def elapsed(self) -> float:
        return self.running

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        # Suspended or not: the clock that counts a suspended machine's time is the one that is read.
        self.now += seconds
        self.running += seconds


_minutes = st.floats(0, 60).map(lambda minutes: minutes * 60)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), _minutes),
        st.tuples(st.just("pass"), st.just(3 * HOUR)),  # suspended
        st.tuples(st.just("jump"), st.floats(-HOUR, HOUR)),
        st.tuples(st.just("jump"), st.sampled_from([-HOUR, HOUR])),  # a local time taken for UTC, in summer
        st.tuples(st.just("correct"), st.just(0.0)),
        st.tuples(st.just("refuse"), st.just(0.0)),
    ),
    max_size=30,
)


@pytest.mark.deep
@settings(max_examples=examples(100, 15_000), deadline=None)
@given(
    steps=_steps,
    wrong_by=st.floats(-HOUR, HOUR),
    lifetime=st.sampled_from([300.0, 900.0, 3600.0]),
    tells_issue=st.booleans(),
    latency=st.sampled_from([0.0, 0.1, 20.0]),
)
def test_no_login_sends_a_dying_token_whatever_the_clocks_do(
    steps: list[tuple[str, float]], wrong_by: float, lifetime: float, tells_issue: bool, latency: float
) -> None:
    # A token that says nothing of its issue can be judged by a host that is ahead only as dead too early.
    machine = Machine(wrong_by if tells_issue else min(0.0, wrong_by))
    workspace = Workspace(
        lambda: machine.now,
        lifetime=lifetime,
        tells_issue=tells_issue,
        takes=lambda: machine.pass_time(latency),
    )
    minter = AutoscalingOAuth(
        workspace.as_control_plane(), ENDPOINT, ttl=None if lifetime == HOUR else lifetime
    )
    tokens = TokenProvider(minter, clock=machine)
    least = min(TokenPolicy().min_left, lifetime / 4)
    reasons = 1
    for kind, seconds in [("pass", 0.0), *steps]:
        if kind == "pass":
            reasons += 1 + int(seconds / (lifetime / 4))
            machine.pass_time(seconds)
        elif kind == "jump":
            machine.wrong_by = seconds if tells_issue else min(0.0, seconds)
            reasons += 1
        elif kind == "correct":
            machine.wrong_by = 0.0
            reasons += 1
        else:
            tokens.invalidate(tokens.get().fingerprint)
            reasons += 2
        for _ in range(3):
            token = tokens.get()
            truly_left = workspace.expiries[token.reveal()] - machine.now
            # Whole seconds are what a JWT counts in; a renewal in the background lets its latency pass.
            assert truly_left >= least - 1 - 2 * latency
            let_renewals_land()
    assert len(workspace.wishes) <= reasons


def let_renewals_land() -> None:
    for thread in threading.enumerate():
        if thread.name == "lakebase-mint":
            thread.join(10)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_the_time_zone_of_the_host_says_nothing_about_a_token(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        # Two minutes before summer time begins in Berlin.
        clock = FakeClock(1_774_745_880.0)
        workspace = Workspace(clock.wall)
        tokens = TokenProvider(AutoscalingOAuth(workspace.as_control_plane(), ENDPOINT), clock=clock)
        assert 3599 <= tokens.seconds_left(tokens.get()) <= 3600
        clock.advance(600)
        assert 2999 <= tokens.seconds_left(tokens.get()) <= 3000
    finally:
        monkeypatch.undo()
        time.tzset()


# 3. The control plane hangs.


def test_a_hanging_control_plane_delays_no_holder_and_each_newcomer_by_its_own_deadline(
    lakebase_env: LocalLakebase,
) -> None:
    clock = FakeClock(time.time())
    holder = LakebaseClient(lakebase_env.config(), clock=clock)
    token = holder.tokens.get()
    before = set(threading.enumerate())
    lakebase_env.admin.fault("POST", CREDENTIALS, hang=300)
    clock.advance(0.85 * HOUR)
    seconds = []
    for _ in range(200):
        start = time.perf_counter()
        assert holder.tokens.get(timeout=0) is token
        seconds.append(time.perf_counter() - start)
    # The first starts the thread that renews. A busy machine may stop any thread for longer than this.
    assert sorted(seconds)[-10] < 0.001

    cold = LakebaseClient(lakebase_env.config())
    late: list[float] = []

    def ask(deadline: float) -> None:
        start = time.monotonic()
        with pytest.raises(ControlPlaneTimeoutError):
            cold.tokens.get(timeout=deadline)
        late.append(time.monotonic() - start - deadline)

    callers = [threading.Thread(target=ask, args=(0.1 + 0.005 * i,)) for i in range(100)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(late) == 100
    assert min(late) >= -0.01
    assert max(late) < BUSY
    assert len(set(threading.enumerate()) - before) == 2  # one mint for each client
    lakebase_env.admin.clear_faults()
    assert cold.tokens.get(timeout=10)
    eventually(lambda: set(threading.enumerate()) <= before)


# 4. Throttled, broken, unavailable, then well.


def test_a_recovering_control_plane_is_asked_few_times_and_not_in_step(lakebase_env: LocalLakebase) -> None:
    clocks = [FakeClock(time.time()) for _ in range(8)]
    for clock in clocks:
        lakebase_env.admin.reset()
        lakebase_env.admin.fault("POST", CREDENTIALS, status=429, retry_after=7, times=1)
        lakebase_env.admin.fault("POST", CREDENTIALS, status=500, error_code="INTERNAL_ERROR", times=1)
        lakebase_env.admin.fault("POST", CREDENTIALS, status=502, times=1)
        lakebase_env.admin.fault("POST", CREDENTIALS, status=503, times=1)
        lakebase_env.admin.fault("POST", CREDENTIALS, status=504, times=1)
        tokens = LakebaseClient(lakebase_env.config(), clock=clock).tokens
        threads = [threading.Thread(target=tokens.get, args=(120,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asked = [request for request in lakebase_env.admin.requests() if request.path == CREDENTIALS]
        assert [request.status for request in asked] == [429, 500, 502, 503, 504, 200]
        first, *later = clock.slept
        assert first == 7.0
        assert all(0.049 <= pause <= 1.001 * 2**n for n, pause in enumerate(later, start=1))
    assert len({tuple(clock.slept[1:]) for clock in clocks}) == len(clocks)


def test_a_control_plane_that_stays_broken_is_asked_a_bounded_number_of_times(
    lakebase_env: LocalLakebase,
) -> None:
    lakebase_env.admin.fault("POST", CREDENTIALS, status=500, error_code="INTERNAL_ERROR")
    clock = FakeClock(time.time())
    tokens = LakebaseClient(lakebase_env.config(), clock=clock).tokens
    for _ in range(200):
        with pytest.raises(ControlPlaneUnavailableError):
            tokens.get(timeout=5)
        clock.advance(1)
    asked = sum(request.path == CREDENTIALS for request in lakebase_env.admin.requests())
    assert 3 <= asked <= 40


# 5. A token is revoked while many log in with it.


@pytest.fixture(scope="module")
def roomy() -> Iterator[LocalLakebase]:
    """A local Lakebase that takes 200 connections at once."""
    with LocalLakebase(max_connections=260) as lake:
        yield lake


class AtOnce(TokenProvider):
    """Lets every thread wait, the first time, until all of them have their token."""

    def __init__(self, tokens: TokenProvider, threads: int) -> None:
        super().__init__(tokens._minter)
        self._barrier = threading.Barrier(threads)
        self._mine = threading.local()

    def get(self, timeout: float = 60.0) -> Token:
        token = super().get(timeout)
        if not hasattr(self._mine, "waited"):
            self._mine.waited = True
            self._barrier.wait(60)
        return token


def test_200_logins_that_are_refused_at_once_cost_one_mint_and_one_retry_each(roomy: LocalLakebase) -> None:
    roomy.admin.reset()
    tokens = AtOnce(LakebaseClient(roomy.config()).tokens, threads=200)
    client = LakebaseClient(roomy.config(), tokens=tokens)
    TokenProvider.get(tokens)
    roomy.admin.revoke_tokens()
    failures: list[BaseException] = []

    def log_in() -> None:
        try:
            client.connect(timeout=120).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=log_in) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    counters = roomy.admin.counters()
    assert (counters.mints, counters.refused_logins, counters.logins) == (2, 200, 200)
    assert tokens.stats().invalidations == 1


# 9. Fork, spawn and pickle.


def child_connects(client: LakebaseClient) -> str:
    """Fork; what the child's own pooled connection says, or the error."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with client.connection(timeout=30) as connection:
                row = connection.execute("SELECT 'the child, pid ' || %s::text", (os.getpid(),)).fetchone()
            os.write(write_end, str(row).encode())
        except BaseException as error:
            os.write(write_end, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def test_a_child_forked_while_a_refresh_runs_and_locks_are_held_works(
    lakebase_env: LocalLakebase, store: Path
) -> None:
    clock = FakeClock(time.time())
    with LakebaseClient(LakebaseConfig.from_env(), clock=clock) as client:
        with client.connection() as connection:
            first = connection.execute("SELECT pg_backend_pid()").fetchone()
        lakebase_env.admin.fault("POST", CREDENTIALS, hang=300, times=1)
        clock.advance(0.85 * HOUR)
        client.tokens.get()
        # The renewal hangs, with the store's file lock in hand.
        eventually(lambda: held(store))
        with client.tokens._lock:
            # The token that is still good serves the child as it serves the parent.
            assert "the child" in child_connects(client)
        clock.advance(0.14 * HOUR)
        # Nor does a child without a token wait for its parent's thread, or for ever for its parent's lock.
        assert "the child" in child_connects(client)
        lakebase_env.admin.clear_faults()
        # The parent's own socket is as it was.
        with client.connection() as connection:
            assert connection.execute("SELECT pg_backend_pid()").fetchone() == first
    assert lakebase_env.admin.counters().refused_logins == 0


def _connect_by(pickled: bytes) -> str:
    """What a spawned process makes of a pickled configuration."""
    config = pickle.loads(pickled)  # noqa: S301 # its own parent's
    try:
        LakebaseClient(config).connect()
    except ConfigError as error:
        explained = str(error)
    else:
        explained = "connected"
    with LakebaseClient(LakebaseConfig.from_env()) as client, client.connection() as connection:
        row = connection.execute("SELECT current_user").fetchone()
    return f"{explained} / {row}"


def test_a_spawned_process_gets_the_configuration_and_no_secret(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config())
    token = client.tokens.get()
    pickled = pickle.dumps(client.config)
    assert lakebase_env.client_secret.encode() not in pickled
    for secretive in (token, client.tokens, client):
        with pytest.raises(TypeError):
            pickle.dumps(secretive)
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        said = workers.apply(_connect_by, (pickled,))
        workers.close()
        workers.join()
    assert "A secret was removed" in said
    assert lakebase_env.client_id in said


# 6. The pool grows after 61 minutes against a server that really checks expiry; old connections keep working.


def test_a_pool_that_grows_after_61_minutes_logs_in_with_a_new_token(lakebase_env: LocalLakebase) -> None:
    clock = FakeClock(time.time())
    with LakebaseClient(lakebase_env.config(), clock=clock) as client, client.connection() as old:
        first = client.tokens.get()
        clock.advance(61 * 60)
        # The workspace's clock is the one that logins are judged by.
        lakebase_env.admin.set_clock_skew(61 * 60)
        env = lakebase_env.env()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(user=env["PGUSER"], password=first.reveal(), sslmode="verify-full").close()
        with client.connection() as new:
            assert new.info.backend_pid != old.info.backend_pid
            assert old.execute("SELECT 1").fetchone() == new.execute("SELECT 1").fetchone() == (1,)
        assert client.tokens.get().fingerprint != first.fingerprint
        counters = lakebase_env.admin.counters()
        # The one that was refused is the old token, which this test sent by hand.
        assert (counters.mints, counters.refused_logins) == (2, 1)


# 7. Endpoint suspended for 10 s, 20 dead pooled connections: the first checkout takes a second longer.


@pytest.mark.parametrize("mode", ["hold", "starting", "paused"])
def test_the_first_checkout_after_ten_seconds_of_waking(lakebase_env: LocalLakebase, mode: str) -> None:
    wake = 10.0
    with LakebaseClient(lakebase_env.config(max_size=20)) as client:
        borrowed = [client.pool.getconn() for _ in range(20)]
        for connection in borrowed:
            connection.close()
        for connection in borrowed:
            connection.last_used -= 60  # they have been idle for a minute
        lakebase_env.admin.set_wake_mode(mode)
        lakebase_env.admin.set_wake_delay(wake)
        lakebase_env.admin.suspend()
        start = time.monotonic()
        with client.connection() as connection:
            assert time.monotonic() - start <= wake + BUSY
            assert connection.execute("SELECT 1").fetchone() == (1,)


# 8 (DNS) is tests/faults/test_dns.py; 10 (the canary) is test_secrets.py.
