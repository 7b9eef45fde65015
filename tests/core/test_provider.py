from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from lakebase_provider.core.clock import Clock
from lakebase_provider.core.errors import (
    ControlPlaneThrottledError,
    ControlPlaneTimeoutError,
    ControlPlaneUnavailableError,
    LakebaseError,
    PermissionDeniedError,
)
from lakebase_provider.core.provider import TokenProvider
from lakebase_provider.core.token import Token
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
    return TokenProvider(minter, clock=clock, give_up_after=60)


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
    clock.advance(LIFETIME * 0.7)
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
    clock.advance(LIFETIME * 0.7)
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


def test_a_valid_token_is_served_at_once_while_the_control_plane_hangs(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    tokens = provider(minter, clock)
    tokens.get()
    minter.gate.clear()
    clock.advance(LIFETIME * 0.7)
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


def test_a_day_needs_few_mints_and_no_login_sees_a_dying_token(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    tokens = provider(minter, clock)
    for _ in range(24 * 60):
        token = tokens.get()
        assert tokens.seconds_left(token) >= 120
        clock.advance(60)
        # A renewal that is under way lands before the next minute, as it does in real time.
        eventually(lambda: tokens._flight is None)
    # Renewal at half-life, earlier or later by a tenth of the life: 48 on average.
    assert 40 <= tokens.stats().mints <= 60


def test_a_forked_child_keeps_the_token_and_mints_on_its_own(clock: FakeClock) -> None:
    minter = ScriptedMinter()
    tokens = provider(minter, clock)
    tokens.get()
    tokens._lock.acquire()  # as if another thread held it at the moment of the fork
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
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
