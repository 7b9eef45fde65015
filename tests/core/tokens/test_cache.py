from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.simulated_day import simulate_day
from lakebase_provider.core.base.clock import Clock
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.errors import (
    ControlPlaneThrottledError,
    ControlPlaneTimeoutError,
    ControlPlaneUnavailableError,
    LakebaseError,
    LoginRejectedError,
    PermissionDeniedError,
)
from lakebase_provider.core.tokens.cache import TokenProvider
from lakebase_provider.core.tokens.minters import NativePassword
from lakebase_provider.core.tokens.token import Token
from tests.core.fake_clock import FakeClock
from tests.eventually import eventually

LIFETIME = 3600.0


class ScriptedMinter:
    """The network's edge: mints numbered tokens, or raises what the script says; can be held at a gate."""

    def __init__(self, *script: LakebaseError | None) -> None:
        self.script: Iterator[LakebaseError | None] = iter(script)
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def mint(self, clock: Clock) -> Token:
        self.calls += 1
        self.entered.release()
        assert self.gate.wait(10)
        error = next(self.script, None)
        if error is not None:
            raise error
        now = clock.wall()
        return Token(
            f"token-{self.calls}", expires_at=now + LIFETIME, minted_at=now, minted_elapsed=clock.elapsed()
        )


def provider(minter: ScriptedMinter, clock: FakeClock) -> TokenProvider:
    return TokenProvider(minter, clock=clock)


def test_a_fresh_token_is_served_from_the_cache(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    tokens = provider(minter, clock)
    assert {tokens.get().reveal() for _ in range(100)} == {"token-1"}
    assert minter.calls == 1
    assert tokens.stats().mints == 1
    assert tokens.stats().served == 100


def test_sixty_four_threads_share_one_mint(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    minter.gate.clear()
    tokens = provider(minter, clock)
    barrier = threading.Barrier(64)
    got: list[str] = []

    def ask() -> None:
        barrier.wait()
        got.append(tokens.get().reveal())

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    minter.entered.acquire()
    minter.gate.set()
    for thread in threads:
        thread.join()
    assert got == ["token-1"] * 64
    assert minter.calls == 1


def test_a_stale_token_is_served_while_one_thread_renews_it(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    tokens = provider(minter, clock)
    tokens.get()
    minter.gate.clear()
    clock.advance(LIFETIME * 0.85)
    assert {tokens.get().reveal() for _ in range(20)} == {"token-1"}
    minter.gate.set()
    eventually(lambda: tokens.stats().mints == 2)
    assert tokens.get().reveal() == "token-2"
    assert minter.calls == 2


def test_an_unusable_token_is_not_served(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    tokens = provider(minter, clock)
    tokens.get()
    clock.advance(LIFETIME - 119)
    assert tokens.get().reveal() == "token-2"


def test_the_wall_clock_set_back_does_not_revive_a_token(clock: FakeClock) -> None:
    tokens = provider(ScriptedMinter(), clock)
    tokens.get()
    clock.advance(LIFETIME)
    clock.now -= 3600
    assert tokens.get().reveal() == "token-2"


def test_a_valid_token_outlives_a_failing_renewal(clock: FakeClock) -> None:
    minter = ScriptedMinter(None, ControlPlaneUnavailableError("503"), None)
    tokens = provider(minter, clock)
    tokens.get()
    clock.advance(LIFETIME * 0.85)
    assert tokens.get().reveal() == "token-1"
    eventually(lambda: tokens.stats().failures == 1 and tokens._flight is None)
    # The backoff of the background keeps further calls from asking at once.
    eventually(lambda: tokens.get().reveal() == "token-1")
    clock.advance(120)
    eventually(lambda: tokens.get().reveal() == "token-3")


def test_retry_after_is_honoured(clock: FakeClock) -> None:
    minter = ScriptedMinter(ControlPlaneThrottledError("429", retry_after=17.0))
    tokens = provider(minter, clock)
    assert tokens.get().reveal() == "token-2"
    assert clock.slept == [17.0]


def test_nobody_is_stuck_behind_a_long_retry_after(clock: FakeClock) -> None:
    minter = ScriptedMinter(ControlPlaneThrottledError("slow down", retry_after=600.0))
    tokens = provider(minter, clock)
    for _ in range(50):
        # Waiting would not help: the deadline comes before the workspace may be asked again.
        with pytest.raises(ControlPlaneThrottledError, match="slow down") as caught:
            tokens.get(timeout=60)
    assert caught.value.retry_after == 600.0
    assert (minter.calls, clock.slept) == (1, [])
    clock.advance(590)
    with pytest.raises(ControlPlaneThrottledError) as caught:
        tokens.get(timeout=5)
    assert caught.value.retry_after == 10.0
    assert tokens.get(timeout=11).reveal() == "token-2"
    assert clock.slept == [10.0]


def test_a_retry_after_of_a_day_is_not_believed(clock: FakeClock) -> None:
    minter = ScriptedMinter(ControlPlaneThrottledError("429", retry_after=86_400.0))
    tokens = provider(minter, clock)
    with pytest.raises(ControlPlaneThrottledError):
        tokens.get()
    clock.advance(601)
    assert tokens.get().reveal() == "token-2"


def test_retry_after_holds_the_background_back_but_not_the_valid_token(clock: FakeClock) -> None:
    minter = ScriptedMinter(None, ControlPlaneThrottledError("429", retry_after=300.0))
    tokens = provider(minter, clock)
    tokens.get()
    clock.advance(LIFETIME * 0.85)
    assert tokens.get().reveal() == "token-1"
    eventually(lambda: tokens.stats().failures == 1 and tokens._flight is None)
    for _ in range(29):
        clock.advance(10)
        assert tokens.get().reveal() == "token-1"
    assert minter.calls == 2
    clock.advance(11)
    eventually(lambda: tokens.get().reveal() == "token-3")


class Sleepers(FakeClock):
    """A clock on which a sleeper sleeps until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep = threading.Semaphore(0)
        self.morning = threading.Event()

    def sleep(self, seconds: float) -> None:
        self.asleep.release()
        assert self.morning.wait(10)
        super().sleep(seconds)


def test_who_comes_during_a_pause_that_is_too_long_for_him_is_told_the_cause() -> None:
    clock = Sleepers()
    minter = ScriptedMinter(ControlPlaneThrottledError("slow down", retry_after=50.0))
    tokens = provider(minter, clock)
    patient: list[str] = []
    thread = threading.Thread(target=lambda: patient.append(tokens.get(timeout=60).reveal()))
    thread.start()
    clock.asleep.acquire()
    with pytest.raises(ControlPlaneThrottledError, match="slow down"):
        tokens.get(timeout=49)
    clock.morning.set()
    thread.join()
    assert patient == ["token-2"]


def test_transient_failures_are_retried_with_backoff_until_the_budget_is_gone(clock: FakeClock) -> None:
    minter = ScriptedMinter(*(ControlPlaneUnavailableError("500") for _ in range(100)))
    tokens = provider(minter, clock)
    with pytest.raises(ControlPlaneUnavailableError, match="500"):
        tokens.get()
    assert 3 <= minter.calls < 100
    assert sum(clock.slept) <= 60


def test_a_refusal_is_remembered_for_thirty_seconds(clock: FakeClock) -> None:
    minter = ScriptedMinter(PermissionDeniedError("no"), None)
    tokens = provider(minter, clock)
    for _ in range(200):
        with pytest.raises(PermissionDeniedError):
            tokens.get()
    assert minter.calls == 1
    clock.advance(31)
    assert tokens.get().reveal() == "token-2"


def test_a_caller_keeps_its_deadline_when_the_mint_hangs(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    minter.gate.clear()
    tokens = provider(minter, clock)
    for _ in range(3):
        with pytest.raises(ControlPlaneTimeoutError, match=r"within 0\.0"):
            tokens.get(timeout=0.02)
    assert minter.calls == 1
    minter.gate.set()
    assert tokens.get().reveal() == "token-1"


def test_the_cause_is_told_when_the_retry_hangs(clock: FakeClock) -> None:
    class HangsTheSecondTime(ScriptedMinter):
        def mint(self, clock: Clock) -> Token:
            if self.calls == 1:
                self.gate.clear()
            return super().mint(clock)

    minter = HangsTheSecondTime(ControlPlaneUnavailableError("really a 503"))
    tokens = provider(minter, clock)
    with pytest.raises(ControlPlaneUnavailableError, match="really a 503"):
        # The fake clock has passed the pause; what remains are real seconds.
        tokens.get(timeout=1.2)
    minter.gate.set()


def test_waiting_callers_leave_one_thread_behind(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    minter.gate.clear()
    tokens = provider(minter, clock)
    before = set(threading.enumerate())

    def ask() -> None:
        with pytest.raises(ControlPlaneTimeoutError):
            tokens.get(timeout=0.05)

    callers = [threading.Thread(target=ask) for _ in range(100)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(set(threading.enumerate()) - before) == 1
    minter.gate.set()
    eventually(lambda: set(threading.enumerate()) <= before)
    assert minter.calls == 1


async def test_a_hundred_coroutines_wait_on_no_thread_of_theirs(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    minter.gate.clear()
    tokens = provider(minter, clock)
    before = set(threading.enumerate())
    start = time.monotonic()
    outcomes = await asyncio.gather(*(tokens.aget(timeout=0.2) for _ in range(100)), return_exceptions=True)
    assert time.monotonic() - start < 100 * 0.2 / 2  # one after the other they would take twenty seconds
    assert {type(outcome) for outcome in outcomes} == {ControlPlaneTimeoutError}
    assert len(set(threading.enumerate()) - before) == 1
    waiting = asyncio.create_task(tokens.aget())
    cancelled = asyncio.create_task(tokens.aget())
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    minter.gate.set()
    assert (await waiting).reveal() == "token-1"
    assert cancelled.cancelled()
    eventually(lambda: set(threading.enumerate()) <= before)


async def test_aget_is_told_what_get_is_told(clock: FakeClock) -> None:
    minter = ScriptedMinter(PermissionDeniedError("no"))
    tokens = provider(minter, clock)
    for _ in range(3):
        with pytest.raises(PermissionDeniedError, match="no"):
            await tokens.aget()
    assert minter.calls == 1


def test_a_machine_without_a_thread_to_spare_says_so(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    minter = ScriptedMinter()
    tokens = provider(minter, clock)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(ControlPlaneUnavailableError, match="can't start new thread"):
            tokens.get()
    clock.advance(2)
    assert tokens.get().reveal() == "token-1"


def test_a_valid_token_is_served_at_once_while_the_control_plane_hangs(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    tokens = provider(minter, clock)
    tokens.get()
    minter.gate.clear()
    clock.advance(LIFETIME * 0.85)
    assert tokens.get(timeout=0).reveal() == "token-1"
    minter.gate.set()


def test_invalidate_compares_and_swaps(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    tokens = provider(minter, clock)
    first = tokens.get().fingerprint
    assert [tokens.invalidate(first) for _ in range(200)].count(True) == 1
    second = tokens.get()
    assert not tokens.invalidate(first)
    assert tokens.get() is second
    assert tokens.stats().invalidations == 1


class SameMinter(ScriptedMinter):
    """A workspace that hands out the token that it gave before."""

    def mint(self, clock: Clock) -> Token:
        super().mint(clock)
        return Token("the-same", clock.wall() + LIFETIME, clock.wall(), clock.elapsed())


def test_a_refused_token_is_not_served_again_even_if_it_is_minted_again(clock: FakeClock) -> None:
    minter = SameMinter()
    tokens = provider(minter, clock)
    fingerprint = tokens.get().fingerprint
    minter.gate.clear()
    clock.advance(LIFETIME * 0.85)
    tokens.get()  # starts a renewal
    minter.entered.acquire()
    minter.entered.acquire()
    assert tokens.invalidate(fingerprint)
    minter.gate.set()
    with pytest.raises(LoginRejectedError, match="returned the token that a login refused"):
        tokens.get()
    with pytest.raises(LoginRejectedError):
        tokens.get()
    assert minter.calls == 2


def test_a_token_that_is_minted_again_does_not_live_anew(clock: FakeClock) -> None:
    minter = SameMinter()
    tokens = provider(minter, clock)
    first = tokens.get()
    clock.advance(LIFETIME * 0.85)
    assert tokens.get() is first
    eventually(lambda: tokens.stats().failures == 1 and tokens._flight is None)
    assert tokens.get() is first
    clock.advance(LIFETIME * 0.14)
    with pytest.raises(ControlPlaneUnavailableError, match="same token again"):
        tokens.get(timeout=5)


def test_a_token_that_dies_on_its_way_here_is_not_served(clock: FakeClock) -> None:
    class Suspended(ScriptedMinter):
        def mint(self, clock: Clock) -> Token:
            token = super().mint(clock)
            if self.calls == 1:
                clock.sleep(LIFETIME)
            return token

    tokens = provider(Suspended(), clock)
    assert tokens.get(timeout=2 * LIFETIME).reveal() == "token-2"


def test_a_native_password_is_not_thrown_away(clock: FakeClock) -> None:
    tokens = TokenProvider(NativePassword(Secret("native")), clock=clock)
    assert not tokens.invalidate(tokens.get().fingerprint)
    assert tokens.get().reveal() == "native"


def test_listeners_hear_of_a_token_before_anybody_gets_it(clock: FakeClock) -> None:
    heard: list[str] = []

    def listener(token: Token) -> None:
        heard.append(token.reveal())

    tokens = provider(ScriptedMinter(), clock)
    tokens.on_mint(listener)
    tokens.on_mint(listener)
    assert tokens.get().reveal() in heard
    late: list[str] = []
    tokens.on_mint(lambda token: late.append(token.reveal()))
    assert heard == late == ["token-1"]


def test_an_unexpected_error_reaches_the_caller(clock: FakeClock) -> None:
    class Broken:
        def mint(self, clock: Clock) -> Token:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        TokenProvider(Broken(), clock=clock).get()


async def test_aget_serves_the_same_token(clock: FakeClock) -> None:
    tokens = provider(ScriptedMinter(), clock)
    assert (await tokens.aget()).reveal() == tokens.get().reveal() == "token-1"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("connections", "lifetime"), [(10, 2700), (1, 60), (200, 2700)])
def test_a_day_needs_few_mints_and_no_login_sees_a_dying_token(
    seed: int, connections: int, lifetime: float
) -> None:
    day = simulate_day(connections=connections, lifetime=lifetime, seed=seed)
    assert day.logins >= 300
    assert day.mints <= 31
    assert day.least_left >= 60


def test_a_forked_child_keeps_the_token_and_mints_on_its_own(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    tokens = provider(minter, clock)
    tokens.get()
    tokens._lock.acquire()  # as if another thread held it at the moment of the fork
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            tokens.on_mint(lambda token: None)
            tokens.invalidate("another")
            first = tokens.get().reveal()
            clock.advance(LIFETIME)
            os.write(write_end, f"{first} {tokens.get(timeout=5).reveal()}".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    tokens._lock.release()
    with os.fdopen(read_end) as answer:
        assert answer.read() == "token-1 token-2"
    os.waitpid(child, 0)
