"""Every way by which a name leads this package to a file: which argument it is, and what uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException

from dagster_lakebase import LakebaseResource
from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.errors import ConfigError, LakebaseError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.operators.unload import LakebaseUnloadOperator
from lakebase_provider.triggers.sql import LakebaseSqlTrigger

QUERY = "select 'lakebase' as word"


@dataclass(frozen=True)
class Front:
    """One of them.

    Attributes:
        title: What uses the name.
        argument: The argument's name, which errors have to say.
        suffix: End of a name that it takes.
        use: Uses a name, on a database with a table ``words (word text)``.
    """

    title: str
    argument: str
    suffix: str
    use: Callable[[Any], object]

    def __str__(self) -> str:
        return self.title

    def attempt(self, name: Any) -> None:
        """Use a name, and raise what went wrong as this package's own error."""
        try:
            self.use(name)
        except AirflowFailException as error:
            raise error.__cause__ or error from None


def _with_client(work: Callable[[Any, Any], object]) -> Callable[[Any], object]:
    def use(name: Any) -> object:
        with LakebaseClient(LakebaseConfig.from_env()) as client:
            return work(client, name)

    return use


def _operator(operator: Any) -> object:
    fields = {"dag_id": "dag", "task_id": "task", "run_id": "run", "map_index": -1}
    context: Any = {"ti": SimpleNamespace(**fields)}
    operator.render_template_fields(context)
    return operator.execute(context)


def _trigger(name: Any) -> object:
    trigger = LakebaseSqlTrigger(
        conn_id="lakebase_default", sql=[QUERY], parameters=None, settings={}, session={}, output_path=name
    )

    async def event() -> Any:
        async for event in trigger.run():
            await trigger.cleanup()
            return event.payload
        raise AssertionError("no event")

    found = asyncio.run(event())
    if found["status"] == "error":
        # The event tells the kind by its name.
        kind = ConfigError if found["kind"] == "ConfigError" else LakebaseError
        raise kind(found["message"], remedy=found["remedy"])
    return found


def _dagster_unload(name: Any) -> object:
    return LakebaseResource().client.unload(QUERY, name, "csv")


def _rejecting(client: Any, name: Any) -> object:
    place = Path(name) if isinstance(name, str) else name
    return client.load([("nul\0",), ("kept",)], "words", on_error="reject", reject_to=place)


READERS = [
    Front("client.load", "source", ".csv", _with_client(lambda c, name: c.load(name, "words"))),
    *(
        Front(
            f"client.load {kind}", "source", f".{kind}", _with_client(lambda c, name: c.load(name, "words"))
        )
        for kind in ("parquet", "jsonl", "arrow")
    ),
    Front(
        "LakebaseLoadOperator",
        "source",
        ".csv",
        lambda name: _operator(
            LakebaseLoadOperator(task_id="load", source=name, table="words", load_id=None)
        ),
    ),
    Front("hook.bulk_load", "filename", ".tsv", lambda name: LakebaseHook().bulk_load("words", name)),
]
WRITERS = [
    *(
        Front(
            f"client.unload {kind}",
            "to",
            f".{kind}",
            _with_client(lambda c, name, kind=kind: c.unload(QUERY, name, kind)),  # type: ignore[misc]
        )
        for kind in ("csv", "jsonl", "parquet", "arrow")
    ),
    Front(
        "LakebaseUnloadOperator",
        "to",
        ".csv",
        lambda name: _operator(LakebaseUnloadOperator(task_id="unload", sql=QUERY, to=name, format="csv")),
    ),
    *(
        Front(
            f"LakebaseSqlOperator {kind}",
            "output_path",
            f".{kind}",
            lambda name: _operator(LakebaseSqlOperator(task_id="sql", sql=QUERY, output_path=str(name))),
        )
        for kind in ("csv", "jsonl", "parquet", "arrow")
    ),
    *(
        Front(f"LakebaseSqlTrigger {kind}", "output_path", f".{kind}", lambda name: _trigger(str(name)))
        for kind in ("csv", "jsonl", "parquet", "arrow")
    ),
    Front("hook.bulk_dump", "filename", ".tsv", lambda name: LakebaseHook().bulk_dump("words", name)),
    Front(
        "hook.copy_expert",
        "filename",
        ".tsv",
        lambda name: LakebaseHook().copy_expert(f"COPY ({QUERY}) TO STDOUT", name),
    ),
    Front("reject_to", "reject_to", ".jsonl", _with_client(_rejecting)),
    Front("LakebaseResource", "to", ".csv", _dagster_unload),
]
