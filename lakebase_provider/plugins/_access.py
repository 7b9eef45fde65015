"""Whose page it is: the connections that a user may see, and those that he may also work on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails
from airflow.configuration import conf
from airflow.models.connection import Connection
from airflow.utils.session import create_session
from sqlalchemy import select

_VARIABLE = "AIRFLOW_CONN_"
TYPE = "lakebase"


def may_see(user: Any, conn_id: str | None) -> bool:
    """Whether a user may read a connection; with None, whether he may read any at all."""
    return _may("GET", user, conn_id)


def may_work(user: Any, conn_id: str) -> bool:
    """Whether a user may look at a connection's database now, and cancel what runs there.

    It is the right to edit the connection: whoever has it could lead any task elsewhere.
    """
    return _may("PUT", user, conn_id)


def _may(method: Any, user: Any, conn_id: str | None) -> bool:
    team = None
    if conn_id is not None and conf.getboolean("core", "multi_team", fallback=False):
        team = Connection.get_team_name(conn_id)
    details = ConnectionDetails(conn_id=conn_id, team_name=team)
    return bool(get_auth_manager().is_authorized_connection(method=method, details=details, user=user))


def may_connect() -> bool:
    """Whether the API server may open connections, as Airflow's own Test button asks it."""
    return conf.get("core", "test_connection", fallback="Disabled").strip().lower() == "enabled"


def seen_by(user: Any) -> list[str]:
    """The connections of type ``lakebase`` that a user may read, by their ids."""
    return [
        conn_id
        for conn_id in sorted({*_stored(), *_of_the_environment(), *_named()})
        if may_see(user, conn_id)
    ]


def _stored() -> list[str]:
    with create_session() as session:
        return list(session.scalars(select(Connection.conn_id).where(Connection.conn_type == TYPE)))


def _of_the_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if name.startswith(_VARIABLE) and _type_of(value) == TYPE:
            yield name[len(_VARIABLE) :].lower()


def _type_of(text: str) -> str | None:
    """The type of a connection in a variable, which is JSON or a URI."""
    try:
        found = json.loads(text)["conn_type"] if text.lstrip().startswith("{") else urlsplit(text).scheme
    except (KeyError, TypeError, ValueError):
        return None
    return found if isinstance(found, str) else None


def _named() -> list[str]:
    """Those of a secrets backend, which cannot be asked for all that it has."""
    text = conf.get("lakebase", "page_connections", fallback="") or ""
    return [name.strip() for name in text.split(",") if name.strip()]
