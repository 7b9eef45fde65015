"""Secrets on their way into Airflow's list of what no log line may show."""

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
    """Have tokens masked by the running event loop from now on.

    Airflow's way to the supervisor belongs to the loop in a triggerer and in an async task: a message that
    another thread sends may meet one under way there, and before Airflow 3.3 it breaks the triggerer's.
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
        # Somebody waits on the loop's own thread, perhaps for this token. Masking is the first thing that the
        # loop does afterwards.
        return


async def amask(secret: str) -> None:
    """Mask a secret without blocking the event loop."""
    try:
        from airflow.sdk.log import amask_secret
    except ImportError:
        # Airflow 3.1 has but the blocking one, which finds its way back to the loop from asgiref's threads.
        from asgiref.sync import sync_to_async

        await sync_to_async(mask_secret)(secret)
    else:
        await amask_secret(secret)


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
