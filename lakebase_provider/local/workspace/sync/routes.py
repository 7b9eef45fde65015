"""Routes of pipelines, of the older API of synced tables, and of the statuses of Lakehouse sync."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from lakebase_provider.local.contract.records import Principal
from lakebase_provider.local.workspace.changes.rules import Rules
from lakebase_provider.local.workspace.kinds import flag
from lakebase_provider.local.workspace.settings import ApiError, plain_error
from lakebase_provider.local.workspace.sync import delta
from lakebase_provider.local.workspace.sync.mirror import CdfConfigs
from lakebase_provider.local.workspace.sync.pipelines import Pipelines
from lakebase_provider.local.workspace.sync.tables import SyncedTables

Body = dict[str, Any]
Answer = Callable[[Request, Principal], Awaitable[Body]]
#: Returns the body of a request.
ReadBody = Callable[[Request], Awaitable[Body]]
#: Cuts a list to the page that is asked for.
Page = Callable[[str, list[Body], Request], Body]

#: Seconds.
_CREDENTIALS_LAST = 3600.0
_PIPELINES, _DATABASE = "/api/2.0/pipelines", "/api/2.0/database"


class Sync:
    """Synced tables, pipelines and Lakehouse sync, with the routes of their own.

    Args:
        rules: Those of all kinds.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules, self._workspace = rules, rules.workspace
        self.pipelines = Pipelines(rules.workspace, rules.views)
        self.tables = SyncedTables(rules, self.pipelines)
        self.configs = CdfConfigs(rules)
        rules.views.more |= {"synced_table": self.tables, "cdf_config": self.configs}

    def clear(self) -> None:
        """Forget all of it."""
        self.tables.clear()
        self.configs.clear()

    def routes(self, root: str, read_body: ReadBody, page: Page) -> Iterator[tuple[str, str, Answer]]:
        """Method, path and answer of each route.

        Args:
            root: Path of the Autoscaling API.
            read_body: Returns the body of a request.
            page: Cuts a list to the page that is asked for.
        """
        self._read_body, self._page = read_body, page
        one, statuses = (
            f"{_PIPELINES}/{{pipeline}}",
            (
                f"{root}/projects/{{project}}/branches/{{branch}}/databases/{{database}}"
                "/cdf-configs/{cdf_config}/cdf-statuses"
            ),
        )
        yield "GET", _PIPELINES, self._list_pipelines
        yield "GET", one, self._get_pipeline
        yield "POST", f"{one}/updates", self._start
        yield "GET", f"{one}/updates", self._list_updates
        yield "GET", f"{one}/updates/{{update}}", self._get_update
        yield "GET", f"{one}/events", self._list_events
        yield "POST", f"{one}/stop", self._stop
        yield "POST", f"{_DATABASE}/synced_tables", self._create
        yield "GET", f"{_DATABASE}/synced_tables/{{table}}", self._get
        yield "PATCH", f"{_DATABASE}/synced_tables/{{table}}", self._update
        yield "DELETE", f"{_DATABASE}/synced_tables/{{table}}", self._delete
        yield "GET", f"{_DATABASE}/instances/{{instance}}/synced_tables", self._list
        yield "GET", "/api/2.1/unity-catalog/tables/{table}", self._get_catalog_table
        yield "POST", "/api/2.0/unity-catalog/temporary-table-credentials", self._lend_credentials
        yield "GET", statuses, self._list_statuses
        yield "GET", f"{statuses}/{{status}}", self._get_status

    # Pipelines.

    async def _list_pipelines(self, request: Request, caller: Principal) -> Body:
        found = [self.pipelines.view(one) for one in self.pipelines.all.values()]
        return self._page(
            "statuses", [{k: v for k, v in one.items() if k != "spec"} for one in found], request
        )

    async def _get_pipeline(self, request: Request, caller: Principal) -> Body:
        return self.pipelines.view(self.pipelines.find(request.path_params["pipeline"]))

    async def _start(self, request: Request, caller: Principal) -> Body:
        self._rules.authorize(caller)
        body = await self._read_body(request)
        full = body.get("full_refresh", False)
        if not isinstance(full, bool):
            raise self._rules.error("bad_value", field="full_refresh", why="must be true or false")
        pipeline = self.pipelines.find(request.path_params["pipeline"])
        update = self.pipelines.start(pipeline, full_refresh=full, cause=str(body.get("cause", "API_CALL")))
        return {"update_id": update.id}

    async def _list_updates(self, request: Request, caller: Principal) -> Body:
        pipeline = self.pipelines.find(request.path_params["pipeline"])
        updates = [self.pipelines.update_view(pipeline, one) for one in pipeline.updates]
        return self._page("updates", updates, request)

    async def _get_update(self, request: Request, caller: Principal) -> Body:
        pipeline = self.pipelines.find(request.path_params["pipeline"])
        update = self.pipelines.update(pipeline, request.path_params["update"])
        return {"update": self.pipelines.update_view(pipeline, update)}

    async def _list_events(self, request: Request, caller: Principal) -> Body:
        pipeline = self.pipelines.find(request.path_params["pipeline"])
        wanted = request.query_params.get("filter", "")
        if wanted not in ("", "level='ERROR'", "level='INFO'"):
            # Of the real API's language there is no more here.
            raise self._rules.error("bad_value", field="filter", why="must be level='ERROR' or level='INFO'")
        level = wanted.removeprefix("level=").strip("'")
        found = [one for one in pipeline.events if level in ("", one["level"])]
        return self._page("events", found, request)

    async def _stop(self, request: Request, caller: Principal) -> Body:
        self._rules.authorize(caller)
        self.pipelines.stop(self.pipelines.find(request.path_params["pipeline"]))
        return {}

    # The older API of synced tables, in which there are no operations.

    async def _create(self, request: Request, caller: Principal) -> Body:
        self._rules.authorize(caller)
        body = await self._read_body(request)
        table, plan = await run_in_threadpool(self.tables.make_provisioned, body, caller)
        fault = self._workspace.operations.take_fault("synced_table")
        plan.begin()
        try:
            if fault is not None:
                raise plain_error(500, fault.error_code, fault.message)
            if plan.work is not None:
                await run_in_threadpool(plan.work)
        except ApiError:
            plan.undo()
            raise
        plan.settle()
        return self.tables.provisioned_view(table)

    async def _get(self, request: Request, caller: Principal) -> Body:
        table = self.tables.find(request.path_params["table"], provisioned=True)
        return self.tables.provisioned_view(table)

    async def _update(self, request: Request, caller: Principal) -> Body:
        raise self._rules.error("update_unimplemented")

    async def _delete(self, request: Request, caller: Principal) -> Body:
        self._rules.authorize(caller)
        name = request.path_params["table"]
        purge = flag(request.query_params, "purge_data", self._workspace.errors)
        await run_in_threadpool(self.tables.remove_provisioned, name, purge=purge)
        self.tables.leave(name)
        return {}

    async def _list(self, request: Request, caller: Principal) -> Body:
        found = self.tables.provisioned(request.path_params["instance"])
        return self._page("synced_tables", [self.tables.provisioned_view(one) for one in found], request)

    # Tables of the Unity Catalog.

    async def _get_catalog_table(self, request: Request, caller: Principal) -> Body:
        return await run_in_threadpool(self._catalog_table, request.path_params["table"])

    def _catalog_table(self, name: str) -> Body:
        delta.require_deltalake(self._workspace.errors)
        found = delta.catalog_view(self._workspace.lakehouse, name)
        if found is None:
            raise self._rules.error("source_missing", value=name)
        return found

    async def _lend_credentials(self, request: Request, caller: Principal) -> Body:
        body = await self._read_body(request)
        if body.get("operation") != "READ":
            raise self._rules.error("bad_value", field="operation", why="must be READ")
        identity = str(body.get("table_id"))
        name = await run_in_threadpool(delta.name_of_id, self._workspace.lakehouse, identity)
        found = await run_in_threadpool(self._catalog_table, name or identity)
        # The files of this machine need none.
        ends = int((self._workspace.now() + _CREDENTIALS_LAST) * 1000)
        return {"url": found["storage_location"], "expiration_time": ends}

    # Lakehouse sync.

    async def _list_statuses(self, request: Request, caller: Principal) -> Body:
        found = await run_in_threadpool(self.configs.statuses, request.path_params)
        return self._page("cdf_statuses", found, request)

    async def _get_status(self, request: Request, caller: Principal) -> Body:
        return await run_in_threadpool(self.configs.status, request.path_params)
