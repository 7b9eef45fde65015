"""The page's routes. Airflow mounts an application without asking who may use it, so each route asks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from lakebase_provider.plugins import _pages
from lakebase_provider.plugins._access import may_connect, may_see, may_work, seen_by
from lakebase_provider.plugins._forms import Seal, read_form
from lakebase_provider.plugins._looking import Looking

logger = logging.getLogger(__name__)

#: Looks of the past that are shown.
_HISTORY = 20
_HEADERS = {
    "Content-Security-Policy": _pages.POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


# Not coroutines, so that they run in threads: they ask the auth manager, and the metadata database.
def _seen(user: GetUserDep) -> list[tuple[str, bool]]:
    if not may_see(user, None):
        raise HTTPException(403, "You may not read connections.")
    return [(conn_id, may_work(user, conn_id)) for conn_id in seen_by(user)]


def _works(connection_id: str, user: GetUserDep) -> bool:
    if not connection_id:
        raise HTTPException(404, "There is no such page.")
    if not may_see(user, connection_id):
        raise HTTPException(403, "You may not read this connection.")
    return may_work(user, connection_id)


def _must_work(works: Annotated[bool, Depends(_works)]) -> None:
    if not works:
        raise HTTPException(403, "You may not edit this connection, which this needs.")


def _must_connect() -> None:
    if not may_connect():
        raise HTTPException(
            403, "The API server opens no connections: [core] test_connection is not Enabled."
        )


@cache
def app() -> FastAPI:
    """The page as an application, made once for a process."""
    looking = Looking()
    made = FastAPI(title="Lakebase", redirect_slashes=False, docs_url=None, redoc_url=None, openapi_url=None)
    made.add_exception_handler(AnyHTTPException, _refused)
    made.middleware("http")(_with_headers)

    @made.get("/")
    async def listed(
        request: Request, user: GetUserDep, seen: Annotated[list[tuple[str, bool]], Depends(_seen)]
    ) -> Response:
        seal = Seal(request, user)
        last = await run_in_threadpool(lambda: [(name, looking.last(name), works) for name, works in seen])
        return _answer(seal, _pages.listed(last, seal.mark, connects=may_connect()))

    @made.get("/connections/{connection_id:path}")
    async def shown(
        request: Request, connection_id: str, user: GetUserDep, works: Annotated[bool, Depends(_works)]
    ) -> Response:
        seal = Seal(request, user)
        past = await run_in_threadpool(looking.latest, connection_id, _HISTORY)
        page = _pages.shown(
            connection_id,
            next(iter(past), None),
            past,
            seal.mark,
            works=works,
            connects=may_connect(),
        )
        return _answer(seal, page)

    @made.post(
        "/connections/{connection_id:path}", dependencies=[Depends(_must_work), Depends(_must_connect)]
    )
    async def done(request: Request, connection_id: str, user: GetUserDep) -> Response:
        seal, form = Seal(request, user), await read_form(request)
        if form.get("do") == "cancel":
            pid, started, statement = _numbers(form, "pid", "started", "statement")
            seal.require(form, "cancel", connection_id, str(pid), str(started), str(statement))
            logger.info("%s cancels pid %s of connection %s", user.get_name(), pid, connection_id)
            look, said = await looking.cancel(connection_id, pid, started, statement)
        else:
            seal.require(form, "check", connection_id)
            look, said = await looking.look(connection_id)
        past = await run_in_threadpool(looking.latest, connection_id, _HISTORY)
        page = _pages.shown(
            connection_id,
            look or next(iter(past), None),
            past,
            seal.mark,
            works=True,
            connects=True,
            notice=said,
        )
        return _answer(seal, page)

    return made


def _numbers(form: dict[str, str], *names: str) -> tuple[int, ...]:
    try:
        return tuple(int(form[name]) for name in names)
    except (KeyError, ValueError):
        raise HTTPException(400, "The form says not what to cancel.") from None


def _answer(seal: Seal, page: str) -> Response:
    answer = HTMLResponse(page)
    seal.attach(answer)
    return answer


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    return HTMLResponse(
        _pages.refused(error.status_code, str(error.detail)), error.status_code, error.headers
    )


async def _with_headers(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    found = await answer(request)
    found.headers.update(_HEADERS)
    return found
