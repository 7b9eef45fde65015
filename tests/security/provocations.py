"""How each error of the package is brought about, by what really goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from lakebase_provider.core import errors
from tests.security.fronts import SYNC, Front, World
from tests.security.hostile_workspace import CREDENTIALS, DISCOVERY

Act = Callable[[Front, World], object]
ALL = ("core", "async", "airflow", "airflow-async", "dagster")


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
        only: Where alone the package raises it; checked against its source.
        reason: What it is for.
    """

    fronts: tuple[str, ...]
    only: str
    reason: str


PROVOCATIONS: list[Provocation] = []
OUT_OF_REACH: dict[str, OutOfReach] = {
    "ResultTooLargeError": OutOfReach(
        ("core", "dagster"), "lakebase_provider/operators/", "It is about XCom, which Airflow alone has."
    ),
    "StatementError": OutOfReach(
        ("core", "dagster"), "lakebase_provider/triggers/", "It carries an error from Airflow's triggerer."
    ),
}


def raises(kind: str, *fronts: str) -> Callable[[Act], Act]:
    """Register what raises an error of that class, by all fronts unless some are named."""

    def register(act: Act) -> Act:
        PROVOCATIONS.append(Provocation(kind, act, fronts or ALL))
        return act

    return register


# What the caller wrote.


@raises("ConfigError")
def secret_with_a_line_end_inside(front: Front, world: World) -> None:
    front.select(world.settings(client_secret=f"{world.canary()}\n{world.canary()}"))


@raises("ConfigError")
def pat_with_a_foreign_letter(front: Front, world: World) -> None:
    front.select(world.with_pat(token=f"{world.canary()}é"))


@raises("ConfigError")
def password_with_a_nul(front: Front, world: World) -> None:
    front.select(world.native(f"{world.canary()}\0"))


@raises("ConfigError")
def password_beside_oauth(front: Front, world: World) -> None:
    front.select(world.settings(password=world.canary()))


@raises("ConfigError")
def secret_of_a_wrong_type(front: Front, world: World) -> None:
    if front.name == "dagster":
        # Dagster checks types itself, before the resource is there.
        front.select(world.settings(client_secret=world.canary(), endpoint="malformed"))
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
    front.select(world.settings())


@raises("ControlPlaneUnavailableError")
def workspace_fails(front: Front, world: World) -> None:
    world.lake.admin.fault("POST", "/oidc/*", status=503, message=f"no, {world.lake.client_secret}")
    front.select(world.settings())


@raises("ControlPlaneTimeoutError")
def workspace_hangs(front: Front, world: World) -> None:
    world.lake.admin.fault("POST", "/api/*", hang=5)
    front.select(world.settings())


@raises("ClockSkewError")
def token_has_expired(front: Front, world: World) -> None:
    workspace = world.workspace()
    workspace.answers[CREDENTIALS] |= {"expire_time": "2001-01-01T00:00:00Z"}
    front.select(world.at(workspace))


@raises("NotForRest")
def no_discovery_and_then_no_endpoint(front: Front, world: World) -> None:
    workspace = world.workspace()
    del workspace.answers[DISCOVERY]
    del workspace.answers[CREDENTIALS]
    front.select(world.at(workspace))


# The login.


@raises("LakebaseConnectionError")
def refusal_nobody_knows(front: Front, world: World) -> None:
    world.lake.admin.login_fault("a moon in the wrong house")
    front.select(world.settings())


@raises("DnsError")
def no_such_host(front: Front, world: World) -> None:
    front.select(world.settings(host="nobody.databricks.com"))


@raises("DnsError")
def no_such_host_for_a_password(front: Front, world: World) -> None:
    front.select(world.native(host="nobody.databricks.com"))


@raises("TlsError")
def certificate_of_another(front: Front, world: World) -> None:
    world.lake.admin.set_certificate("other_host")
    front.select(world.settings())


@raises("TlsError")
def certificate_of_another_for_a_password(front: Front, world: World) -> None:
    world.lake.admin.set_certificate("other_authority")
    front.select(world.native())


@raises("EndpointWakingError")
def compute_starts(front: Front, world: World) -> None:
    world.lake.admin.login_fault("starting")
    front.select(world.settings())


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


@raises("TooManyConnectionsError")
def server_is_full(front: Front, world: World) -> None:
    world.lake.admin.login_fault("too_many_clients")
    front.select(world.native())


# The pool and statements.


@raises("PoolExhaustedError", *SYNC)
def pool_is_empty(front: Front, world: World) -> None:
    client = front.client(world.settings(max_size=1))
    with client.connection(5), client.connection(0.05):
        pass


@raises("TransactionConflictError", *SYNC)
def undone_for_another(front: Front, world: World) -> None:
    statement = b"DO $$ BEGIN RAISE 'no' USING ERRCODE = '40001'; END $$"
    front.client(world.settings(connect_budget=30.0)).run_transaction(lambda c: c.execute(statement), attempts=1)


assert errors
assert psycopg
