"""The API server of supervised tasks, made in the process that forks their supervisors: it takes seconds."""

from __future__ import annotations

import asyncio
import gc

import httpx
from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI
from airflow.models import import_all_models
from sqlalchemy.orm import configure_mappers

import_all_models()
configure_mappers()
API = InProcessExecutionAPI()


async def _first_request() -> None:
    # Whatever it asks for, the first request is what has the server make its routes.
    async with httpx.AsyncClient(transport=API.atransport, base_url="http://in-process.invalid") as client:
        await client.get("/")


asyncio.run(_first_request())
# All of it lives as long as the process does: no collection of a fork looks at it, and so copies it.
gc.collect()
gc.freeze()
