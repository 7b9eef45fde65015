"""How each error of the package is brought about, by what really goes wrong."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.security.fronts import SYNC, AirflowFront, DagsterFront, Front, Settings, World  # isort: skip

import dagster as dg
import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from dagster_lakebase import LakebaseIOManager, LakebaseResource
from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.base import process
from lakebase_provider.core.connect.connection import LakebaseConnection
from lakebase_provider.core.database.fence import fence
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import Admin, LocalLakebase
from lakebase_provider.operators.health import LakebaseHealthCheckOperator
from lakebase_provider.operators.load import LakebaseLoadOperator
from lakebase_provider.operators.sql import LakebaseSqlOperator
from lakebase_provider.triggers.sql import LakebaseSqlTrigger
from tests.dagster.runs import materialize
from tests.security.copy_data import HEADER, TRAILER, row
from tests.security.hostile_workspace import CREDENTIALS, DISCOVERY
from tests.security.lying_server import LyingServer, of_types

Act = Callable[[Any, World], object]
ENDS_ALL = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename <> current_user"
#: With the asynchronous twins, where these have code of their own.
ALL = ("core", "async", "airflow", "airflow-async", "dagster")
WITH_LITERALS = (*ALL, "dagster-literal")


@dataclass(frozen=True)
class Provocation:
    """What raises an error of that class.

    Attributes:
        kind: Name of the class; the error or what led to it is one.
        act: Raises it by a front.
        fronts: By which.
    """

    kind: str
    act: Act
    fronts: tuple[str, ...]

    @property
    def name(self) -> str:
        """As pytest shows it."""
        return f"{self.kind}-{self.act.__name__}"


@dataclass(frozen=True)
class OutOfReach:
    """Why a front cannot raise an error of that class.

    Attributes:
        fronts: Which.
        only: Where alone the package raises it, by how the files' names begin; checked against its source.
        reason: What it is for.
    """

    fronts: tuple[str, ...]
    only: str | tuple[str, ...]
    reason: str


PROVOCATIONS: list[Provocation] = []
_LOCAL = OutOfReach(
    SYNC,
    "lakebase_provider/local/",
    "It ends in the server process of the local Lakebase, which answers with a text.",
)
OUT_OF_REACH: dict[str, OutOfReach] = {
    "CallerGone": OutOfReach(
        SYNC,
        "lakebase_provider/core/base/threads.py",
        "It ends the thread of a caller that has gone, whose result nobody takes.",
    ),
    "ApiError": _LOCAL,
    "HistoryError": _LOCAL,
    "SyncError": _LOCAL,
    "TokenRefusedError": _LOCAL,
    "_RefusedError": _LOCAL,
    "LocalLakebaseError": OutOfReach(
        ("airflow", "dagster"), "lakebase_provider/local/", "Starting a local Lakebase is no front's."
    ),
    "ResultTooLargeError": OutOfReach(
        ("core", "dagster"), "lakebase_provider/operators/", "It is about XCom, which Airflow alone has."
    ),
    "_ClosedError": OutOfReach(
        SYNC,
        "lakebase_provider/core/bulk/load/transfer/servers.py",
        "It ends a thread, whose result nobody takes.",
    ),
}


def raises(kind: str, *fronts: str) -> Callable[[Act], Act]:
    """Register what raises an error of that class, by all fronts unless some are named."""

    def register(act: Act) -> Act:
        PROVOCATIONS.append(Provocation(kind, act, fronts or ALL))
        return act

    return register


# What the caller wrote.


@raises("ConfigError", *WITH_LITERALS)
def secret_with_a_line_end_inside(front: Front, world: World) -> None:
    front.select(world.settings(client_secret=f"{world.canary()}\n{world.canary()}"))


@raises("ConfigError", *WITH_LITERALS)
def pat_with_a_foreign_letter(front: Front, world: World) -> None:
    front.select(world.with_pat(token=f"{world.canary()}é"))


# No variable can hold it.
@raises("ConfigError", "core", "async", "airflow", "airflow-async", "dagster-literal")
def password_with_a_nul(front: Front, world: World) -> None:
    front.select(world.native(f"{world.canary()}\0"))


@raises("ConfigError", *WITH_LITERALS)
def password_beside_oauth(front: Front, world: World) -> None:
    front.select(world.settings(password=world.canary()))


# Dagster checks types itself, before the resource is there.
@raises("ConfigError", "core", "async", "airflow", "airflow-async")
def secret_of_a_wrong_type(front: Front, world: World) -> None:
    front.select(world.settings(azure_client_secret=[world.canary()], client_id=None))


@raises("ConfigError", "core", "async", "airflow", "airflow-async")
def secret_under_a_misspelt_name(front: Front, world: World) -> None:
    settings = world.settings(client_secretx=world.canary())
    if front.name in ("core", "async"):
        from lakebase_provider.core import LakebaseConfig

        LakebaseConfig.from_mapping(settings)
    front.select(settings)


@raises("NameRefusedError")
def endpoint_with_a_path(front: Front, world: World) -> None:
    front.select(world.settings(endpoint="projects/p/branches/../endpoints/e"))


@raises("HostRefusedError")
def workspace_elsewhere(front: Front, world: World) -> None:
    front.select(world.settings(workspace_host="https://evil.example"))


# What the workspace says.


@raises("ControlPlaneError")
def answer_is_no_object(front: Front, world: World) -> None:
    workspace = world.workspace()
    workspace.answers[CREDENTIALS] = [world.canary()]
    front.select(world.at(workspace))


@raises("ControlPlaneError")
def token_with_a_line_end(front: Front, world: World) -> None:
    workspace = world.workspace()
    workspace.answers[CREDENTIALS] |= {"token": f"{world.canary()}\n"}
    front.select(world.at(workspace))


@raises("NotAuthenticatedError")
def wrong_secret(front: Front, world: World) -> None:
    front.select(world.settings(client_secret=world.canary()))


@raises("NotAuthenticatedError")
def wrong_pat(front: Front, world: World) -> None:
    front.select(world.with_pat(token=world.canary()))


@raises("PermissionDeniedError")
def refusal_that_quotes_the_secret(front: Front, world: World) -> None:
    world.lake.admin.fault("POST", "/api/*", status=403, message=f"no, {world.lake.client_secret}")
    front.select(world.settings())


@raises("EndpointNotFoundError")
def no_such_endpoint(front: Front, world: World) -> None:
    front.select(world.settings(endpoint="projects/local/branches/none/endpoints/none"))


@raises("ControlPlaneThrottledError")
def too_many_requests(front: Front, world: World) -> None:
    world.lake.admin.fault("POST", "/api/*", status=429, retry_after=30)
    front.select(world.settings(connect_budget=1.0))


@raises("ControlPlaneUnavailableError")
def workspace_fails(front: Front, world: World) -> None:
    world.lake.admin.fault("POST", "/oidc/*", status=503, message=f"no, {world.lake.client_secret}")
    front.select(world.settings(connect_budget=1.0))


@raises("ControlPlaneTimeoutError")
def workspace_hangs(front: Front, world: World) -> None:
    world.lake.admin.fault("POST", "/api/*", hang=5)
    front.select(world.settings(connect_budget=1.0))


@raises("ClockSkewError")
def token_has_expired(front: Front, world: World) -> None:
    workspace = world.workspace()
    workspace.answers[CREDENTIALS] |= {"expire_time": "2001-01-01T00:00:00Z"}
    front.select(world.at(workspace))


@raises("NotForRest", *SYNC)
def no_discovery(front: Front, world: World) -> None:
    workspace = world.workspace()
    del workspace.answers[DISCOVERY]
    front.select(world.at(workspace, connect_budget=2.0))


# The workspace's objects, whose errors quote a secret.


def _quoting(world: World, status: int, code: str, text: str) -> None:
    message = f"{text}: {world.lake.client_secret}"
    world.lake.admin.fault(
        "*", "/api/2.0/postgres/projects/*", status=status, error_code=code, message=message
    )


def _ensure_branch(front: Front, world: World, **options: Any) -> object:
    branches = front.client(world.settings()).workspace.branches
    return branches.ensure("canary", ttl=3600, **options)


@raises("AlreadyExistsError", *SYNC)
def branch_is_there(front: Front, world: World) -> None:
    _quoting(world, 409, "ALREADY_EXISTS", "branch with such id already exists")
    _ensure_branch(front, world)


@raises("ProjectBusyError", *SYNC)
def project_is_busy(front: Front, world: World) -> None:
    _quoting(world, 409, "RESOURCE_CONFLICT", "Another operation on the project is still running")
    front.client(world.settings()).workspace.branches.delete("canary", timeout=0.2)


@raises("LimitError", *SYNC)
def too_many_branches(front: Front, world: World) -> None:
    _quoting(world, 400, "QUOTA_EXCEEDED", "branches limit exceeded")
    _ensure_branch(front, world)


@raises("ObjectStateError", *SYNC)
def branch_is_protected(front: Front, world: World) -> None:
    _quoting(world, 400, "BAD_REQUEST", "cannot delete protected branch")
    _ensure_branch(front, world)


@raises("ManagedByParentError", *SYNC)
def endpoint_goes_with_its_branch(front: Front, world: World) -> None:
    front.client(world.settings()).workspace.endpoints.delete("primary")


@raises("NotFoundError", *SYNC)
def no_such_role(front: Front, world: World) -> None:
    _quoting(world, 404, "NOT_FOUND", "role id not found")
    front.client(world.settings()).workspace.roles.get("nobody")


@raises("OperationFailedError", *SYNC)
def operation_fails(front: Front, world: World) -> None:
    world.lake.admin.operation_fault("branch", message=f"no, {world.lake.client_secret}")
    _ensure_branch(front, world)


@raises("OperationTimeoutError", *SYNC)
def operation_never_ends(front: Front, world: World) -> None:
    world.lake.admin.operation_fault("branch", never_ends=True)
    _ensure_branch(front, world, timeout=2.0)


@raises("WrongBranchError", *SYNC)
def session_is_on_production(front: Front, world: World) -> None:
    front.client(world.settings()).branches.require("production")


@raises("LeaseLostError", *SYNC)
def lease_is_another_holders(front: Front, world: World) -> None:
    _ensure_branch(front, world)
    front.client(world.settings()).branches.give_back("canary", uid="br-another")


@raises("MigrationError", *SYNC)
def migration_that_fails(front: Front, world: World) -> None:
    folder = world.folder / "migrations"
    folder.mkdir()
    (folder / "0001_a.sql").write_text("ALTER TABLE absent ADD n int")
    front.client(world.settings()).migrations.run(folder)


@contextmanager
def _two_alike(client: LakebaseClient) -> Iterator[str]:
    with client.connection() as connection:
        connection.execute("CREATE TABLE canary_twice AS SELECT 1 AS n FROM generate_series(1, 2)")
    try:
        yield "canary_twice"
    finally:
        with client.connection() as connection:
            connection.execute("DROP TABLE canary_twice")


@raises("StatementError", *SYNC)
def index_that_the_rows_refuse(front: Front, world: World) -> None:
    client = front.client(world.settings())
    with _two_alike(client) as table:
        client.maintenance.create_index(table, ["n"], unique=True)


@raises("StatementTimeoutError", *SYNC)
def maintenance_without_time(front: Front, world: World) -> None:
    client = front.client(world.settings())
    with _two_alike(client) as table:
        client.maintenance.vacuum(table, timeout=0.001)


@raises("RehearsalError", *SYNC)
def rehearsal_that_fails(front: Front, world: World) -> None:
    front.client(world.settings()).rehearse("SELECT 1", checks=["SELECT false"], then="run")


# The login.


@raises("LakebaseConnectionError", *SYNC)
def refusal_nobody_knows(front: Front, world: World) -> None:
    settings = front.warm(world.settings(connect_budget=world.impatient()))
    world.lake.admin.login_fault("a moon in the wrong house")
    front.select(settings)


@raises("DnsError", *SYNC)
def no_such_host(front: Front, world: World) -> None:
    front.select(front.warm(world.settings(host="nobody.databricks.com", connect_budget=world.impatient())))


@raises("DnsError", *SYNC)
def no_such_host_for_a_password(front: Front, world: World) -> None:
    front.select(world.native(host="nobody.databricks.com", connect_budget=world.impatient()))


@raises("TlsError")
def certificate_of_another(front: Front, world: World) -> None:
    world.lake.admin.set_certificate("other_host")
    front.select(world.settings())


@raises("TlsError")
def certificate_of_another_for_a_password(front: Front, world: World) -> None:
    world.lake.admin.set_certificate("other_authority")
    front.select(world.native())


@raises("EndpointWakingError", *SYNC)
def compute_starts(front: Front, world: World) -> None:
    settings = front.warm(world.settings(connect_budget=world.impatient()))
    world.lake.admin.login_fault("starting")
    front.select(settings)


@raises("EndpointDisabledError")
def endpoint_is_off(front: Front, world: World) -> None:
    world.lake.admin.disable_endpoint()
    front.select(world.settings())


@raises("LoginRejectedError")
def wrong_password(front: Front, world: World) -> None:
    front.select(world.native(world.canary()))


@raises("LoginRejectedError")
def role_of_another(front: Front, world: World) -> None:
    front.select(world.with_pat(user="somebody"))


@raises("DatabaseMissingError")
def no_such_database(front: Front, world: World) -> None:
    front.select(world.settings(database="none"))


@raises("SessionSettingError")
def setting_that_is_refused(front: Front, world: World) -> None:
    front.select(world.settings(lock_timeout=1e9))


@raises("TooManyConnectionsError", *SYNC)
def server_is_full(front: Front, world: World) -> None:
    world.lake.admin.login_fault("too_many_clients")
    front.select(world.native(connect_budget=world.impatient()))


# The pool and statements.


@raises("PoolExhaustedTimeout", *SYNC)
def pool_is_empty(front: Front, world: World) -> None:
    client = front.client(world.settings(max_size=1))
    with client.connection(5), client.connection(0.05):
        pass


def refusing(sqlstate: str) -> bytes:
    """A statement that the server refuses with that code."""
    return f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{sqlstate}'; END $$".encode()


@raises("TransactionConflictError", *SYNC)
def undone_for_another(front: Front, world: World) -> None:
    client = front.client(world.settings())
    client.run_transaction(lambda connection: connection.execute(refusing("40001")), attempts=1)


@raises("LockTimeoutError", *SYNC)
def lock_of_another(front: Front, world: World) -> None:
    client = front.client(world.settings(lock_timeout=60.0))
    client.run_transaction(lambda c: c.execute(refusing("55P03")))


def ended(sqlstate: str, message: str) -> bytes:
    """A statement that the server ends as if by one of its timeouts, whatever its version."""
    return f"DO $$ BEGIN RAISE '{message}' USING ERRCODE = '{sqlstate}'; END $$".encode()


@raises("StatementTimedOut", *ALL)
def statement_takes_too_long(front: Front, world: World) -> None:
    front.select(world.settings(statement_timeout=0.05), "SELECT pg_sleep(60)")


@raises("TransactionTimedOut", *SYNC)
def transaction_takes_too_long(front: Front, world: World) -> None:
    with front.client(world.settings()).connection() as connection:
        connection.execute(ended("25P04", "terminating connection due to transaction timeout"))


@raises("SessionIdled", *SYNC)
def session_idles(front: Front, world: World) -> None:
    with front.client(world.settings()).connection() as connection:
        connection.execute(ended("57P05", "terminating connection due to idle-session timeout"))


@raises("SessionTerminated", *SYNC)
def session_is_terminated(front: Front, world: World) -> None:
    with front.client(world.settings()).connection() as connection:
        pid = connection.info.backend_pid
        world.lake.admin.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        connection.execute("SELECT 1")


@raises("EndpointGone", *SYNC)
def endpoint_is_removed_under_a_session(front: Front, world: World) -> None:
    with front.client(world.settings()).connection() as connection:
        world.lake.admin.remove_endpoint()
        connection.execute("SELECT 1")


@raises("TransactionIdled", *SYNC)
def idle_for_too_long(front: Front, world: World) -> None:
    client = front.client(world.settings())

    def work(connection: LakebaseConnection) -> None:
        connection.execute("SET idle_in_transaction_session_timeout = '10ms'")
        with client.connection() as observer:
            gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
            while observer.execute(gone, (connection.info.backend_pid,)).fetchone() == (False,):
                observer.commit()
        connection.execute("SELECT 1")

    client.run_transaction(work)


@raises("ForkedPoolError", *SYNC)
def pool_of_the_parent(front: Front, world: World) -> None:
    pool = front.client(front.warm(world.settings())).pool
    # As in a forked child, whose frames could not be walked from here.
    with world.monkeypatch.context() as patched:
        patched.setattr(process, "number", 1)
        pool.getconn()


@raises("FenceError", *SYNC)
def fenced_by_another(front: Front, world: World) -> None:
    settings = world.settings()
    holder = world.enter(LakebaseClient(LakebaseConfig(**world.with_pat())))
    fence(world.enter(holder.connection()), "canary")
    if isinstance(front, AirflowFront):
        hook = front.hook(settings)
        hook.fence_key = "canary"
        hook.get_conn()
    with front.client(settings).connection() as connection:
        fence(connection, "canary", timeout=0.1)


class _TaskInstance:
    def xcom_push(self, key: str, value: object) -> None:
        """Nobody reads it."""


@raises("HealthCheckError", *SYNC)
def health_report_of_a_failure(front: Front, world: World) -> None:
    settings = front.warm(world.settings())
    world.lake.admin.login_fault("disabled")
    if isinstance(front, AirflowFront):
        front.connection(settings)
        LakebaseHealthCheckOperator(task_id="health").execute({"ti": _TaskInstance()})
    front.client(settings).health().raise_for_failure()


@raises("LakebaseError", *SYNC)
def health_report_of_the_unexpected(front: Front, world: World) -> object:
    role = f'"{world.lake.client_id}"'
    world.lake.admin.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    try:
        return front.client(world.settings()).health()
    finally:
        world.lake.admin.execute(f"ALTER ROLE {role} RESET ALL")


@raises("HealthCheckError", "airflow")
def the_test_button(front: AirflowFront, world: World) -> object:
    hook = front.hook(world.settings(client_secret=world.canary()))
    ok, text = hook.test_connection()
    assert not ok
    hook.client.health().raise_for_failure()
    return text


@raises("ResultTooLargeError", "airflow")
def more_rows_than_xcom_takes(front: AirflowFront, world: World) -> None:
    front.connection(world.settings())
    LakebaseSqlOperator(task_id="rows", sql="SELECT generate_series(1, 3)", max_xcom_rows=2).execute({})


@raises("StatementError", "airflow")
def failure_in_the_triggerer(front: AirflowFront, world: World) -> None:
    front.connection(world.settings())
    operator = LakebaseSqlOperator(task_id="rows", sql="SELECT pg_sleep(9)", deferrable=True)

    async def event() -> Any:
        trigger = LakebaseSqlTrigger(conn_id="lakebase_default", sql=["SELECT pg_sleep(9)"], timeout=0.1)
        try:
            async for found in trigger.run():
                return found.payload
        finally:
            await trigger.cleanup()
            await (await LakebaseHook().aclient()).aclose()

    operator.execute_complete({}, asyncio.run(event()))


# Bulk.


@raises("TableNotFoundError", *SYNC)
def no_such_table(front: Front, world: World) -> None:
    front.client(world.settings()).load([(1,)], "no_such_table")


@raises("LoadError", *SYNC)
def table_is_a_view(front: Front, world: World) -> None:
    front.client(world.settings()).load([(1,)], "pg_catalog.pg_tables")


def table(front: Front, settings: Settings, columns: str = "id int, at date") -> LakebaseClient:
    """A table of the name `canary`, and the client for it."""
    client = front.client(settings)
    with client.connection() as connection:
        connection.execute(f"DROP TABLE IF EXISTS canary; CREATE TABLE canary ({columns})".encode())
    return client


@raises("ColumnMismatchError", *SYNC)
def column_of_another_name(front: Front, world: World) -> None:
    table(front, world.settings()).load([{"other": 1}], "canary")


@raises("BadRowError", *SYNC)
@raises("BadValueError", *SYNC)
@raises("BadColumnError", *SYNC)
def value_that_does_not_fit(front: Front, world: World) -> None:
    table(front, world.settings()).load([(1, None), ("x", None)], "canary")


@raises("BadRowError", "airflow")
def file_that_does_not_fit(front: AirflowFront, world: World) -> None:
    table(front, world.settings())
    file = world.folder / "rows.csv"
    file.write_text("id,at\n1,2024-01-01\nx,2024-01-01\n")
    LakebaseLoadOperator(task_id="load", source=str(file), table="canary").execute({})


@raises("ChangesUnavailableError", *SYNC)
def changes_of_a_table_that_keeps_none(front: Front, world: World) -> None:
    client, place = table(front, world.settings(), "id int"), str(world.folder / uuid4().hex)
    for _ in range(2):
        write_deltalake(place, pa.table({"id": pa.array([1], pa.int32())}), mode="append")
        client.load(f"delta:{place}", "canary", mode="merge", keys=["id"], since="ledger")


@raises("BadRowError", *SYNC)
def row_that_breaks_a_constraint(front: Front, world: World) -> None:
    table(front, world.settings(), "id int CHECK (id < 2)").load([(1,), (2,)], "canary")


@raises("BadRowError", "dagster")
def asset_that_does_not_fit(front: DagsterFront, world: World) -> None:
    settings = world.settings()
    table(front, settings)

    @dg.asset(key_prefix="public", name="canary")
    def canary() -> pa.Table:
        return pa.table({"id": [2**40], "at": pa.nulls(1, pa.date32())})

    manager = LakebaseIOManager(lakebase=front.resource(settings))
    materialize([canary], resources={"io_manager": manager})


@raises("ConfigError", "dagster")
def resource_of_a_run(front: DagsterFront, world: World) -> None:
    @dg.asset
    def canary(lakebase: LakebaseResource) -> None:
        lakebase.execute("SELECT 1")

    resource = front.resource(world.settings(endpoint="malformed"))
    materialize([canary], resources={"lakebase": resource})


@raises("NotAuthenticatedError", "dagster")
def storage_of_dagster(front: DagsterFront, world: World) -> None:
    from dagster_lakebase.storage import LakebaseStorage

    settings = world.settings(user=None, client_secret=None)
    world.monkeypatch.setenv("CANARY_SECRET", world.canary())
    LakebaseStorage.from_config_value(
        None,
        {**settings, "client_secret": {"env": "CANARY_SECRET"}, "should_autocreate_tables": True},
    )


@raises("LoadInterruptedError", *SYNC)
def session_is_ended(front: Front, world: World) -> None:
    def rows() -> Iterator[tuple[int, None]]:
        yield (1, None)
        world.lake.admin.execute(ENDS_ALL)
        yield (2, None)

    table(front, world.settings()).load(rows(), "canary")


@raises("CommitUnknownError", *SYNC)
@raises("_CutError", *SYNC)
def nobody_knows_of_the_commit(front: Front, world: World) -> None:
    link = world.link()
    settings = front.warm(world.settings(port=link.port, connect_budget=1.0))
    client = table(front, settings)
    commit = LakebaseConnection.commit

    def cut(connection: LakebaseConnection) -> None:
        link.cut_after(0, direction="to_client")
        link.refuse()
        commit(connection)

    world.monkeypatch.setattr(LakebaseConnection, "commit", cut)
    try:
        client.load([(1, None)], "canary")
    finally:
        world.monkeypatch.setattr(LakebaseConnection, "commit", commit)


@raises("ValueRefused", *SYNC)
def number_that_arrow_has_not(front: Front, world: World) -> None:
    front.client(world.settings()).fetch_arrow("SELECT 'NaN'::numeric(10, 2)")


@raises("Malformed", *SYNC)
def value_that_has_not_its_form(front: Front, world: World) -> None:
    fetch_from_liar(front, world, row(b"\2"), "bool")


@raises("MalformedRow", *SYNC)
def row_of_more_fields_than_columns(front: Front, world: World) -> None:
    fetch_from_liar(front, world, row(b"\1", b"\1"), "bool")


def fetch_from_liar(front: Front, world: World, rows: bytes, kind: str) -> None:
    server = world.enter(LyingServer(world.folder))
    server.described, server.copied = of_types(kind), [HEADER + rows, TRAILER]
    config, password = server.config(), world.canary()
    asked = world.settings(
        auth="password",
        user=config.user,
        password=password,
        host=config.host,
        port=config.port,
        sslrootcert=config.sslrootcert,
        client_id=None,
        client_secret=None,
        workspace_host=None,
    )
    front.client(asked).fetch_arrow("SELECT c0 FROM t")


@raises("InexactValueError", *SYNC)
def value_with_a_fraction_of_a_microsecond(front: Front, world: World) -> None:
    with front.client(world.settings()).connection() as connection:
        connection.execute("SELECT %s", [np.timedelta64(1, "ns")])


@raises("_NestedError", *SYNC)
def object_within_a_line_of_json(front: Front, world: World) -> None:
    client, file = front.client(world.settings()), world.folder / "rows.jsonl"
    file.write_text('{"a": {"b": [1]}}\n')
    with client.connection() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS nested (a int)")
    client.load(str(file), "nested")


# What is no front's.


@raises("LocalLakebaseError", "core")
def local_lakebase_that_is_not_started(front: Front, world: World) -> None:
    LocalLakebase().config()


@raises("LocalLakebaseError", "core")
def local_lakebase_without_an_answer(front: Front, world: World) -> None:
    listener = world.enter(closing(socket.create_server(("127.0.0.1", 0))))
    port = listener.getsockname()[1]
    listener.close()
    Admin(port, world.canary(), f"postgresql://postgres:{world.canary()}@127.0.0.1:{port}/postgres").ping()
