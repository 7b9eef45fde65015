"""Adds secrets to Airflow's list of what no log line may show."""

from __future__ import annotations

import asyncio
from concurrent.futures import TimeoutError as FutureTimeoutError
from weakref import ref

from airflow.sdk.log import mask_secret

from lakebase_provider.core.tokens.token import Token

#: Seconds that a mint waits for the event loop; a loop that does not run masks the token once it does.
_LOOP_SECONDS = 1.0

_loop: ref[asyncio.AbstractEventLoop] | None = None


def mask_from_loop() -> None:
    """Mask tokens through the running event loop from now on.

    In a triggerer and in an async task, Airflow's channel to the supervisor belongs to the loop: a message
    from another thread may collide with one under way, and before Airflow 3.3 breaks the triggerer's.
    """
    global _loop
    _loop = ref(asyncio.get_running_loop())


def mask_token(token: Token) -> None:
    """Mask a token before anybody gets it, in whichever thread; for :meth:`TokenProvider.on_mint`."""
    loop = None if _loop is None else _loop()
    if loop is None or not loop.is_running() or _runs_here(loop):
        mask_secret(token.reveal())
        return
    masking = asyncio.run_coroutine_threadsafe(amask(token.reveal()), loop)
    try:
        masking.result(_LOOP_SECONDS)
    except FutureTimeoutError:
        # Something blocks the loop's own thread, perhaps waiting for this token. Masking is the first thing
        # that the loop does afterwards.
        return


async def amask(secret: str) -> None:
    """Mask a secret without blocking the event loop."""
    try:
        from airflow.sdk.log import amask_secret
    except ImportError:
        # Airflow 3.1 has only the blocking one, which gets back to the loop from asgiref's threads.
        from asgiref.sync import sync_to_async

        await sync_to_async(mask_secret)(secret)
    else:
        await amask_secret(secret)


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
