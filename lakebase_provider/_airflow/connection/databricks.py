"""Airflow's connection of type ``databricks``, read as the workspace credentials of this provider."""

from __future__ import annotations

from collections.abc import Mapping

from lakebase_provider._airflow.connection.stored_connection import StoredConnection
from lakebase_provider.core.base.secret import Secret
from lakebase_provider.core.config.environment import PRINCIPALS
from lakebase_provider.core.errors import ConfigError

#: A connection's own settings for the workspace, which exclude another connection that has them.
_OWN = ("workspace_host", "auth_type", *(name for principal in PRINCIPALS for name in principal))
#: The Databricks provider's ways to authenticate that need a library of a cloud or of Kubernetes.
_FOREIGN = (
    "use_azure_managed_identity",
    "use_default_azure_credential",
    "azure_managed_identity_client_id",
    "federated_k8s",
    "azure_ad_endpoint",
)


def check_clash(found: Mapping[str, object], password: Secret | None, conn_id: str) -> None:
    """Refuse a connection that refers to another one for settings that it also has itself.

    Args:
        found: Its settings.
        password: Its password, if any.
        conn_id: Id of the Databricks connection that it names.

    Raises:
        ConfigError: Both name the workspace or its credentials.
    """
    clash = next((f"setting '{name}'" for name in _OWN if name in found), None)
    if clash is None and found.get("auth", "oauth") == "oauth" and password:
        clash = "a password"
    if clash is not None:
        raise ConfigError(
            f"Both 'databricks_conn_id' and {clash} are set.",
            remedy=f"Keep one: either connection '{conn_id}' or this one provides workspace and credentials.",
        )


def workspace_credentials(connection: StoredConnection) -> dict[str, object]:
    """The settings that a Databricks connection stands for.

    Args:
        connection: A connection of type ``databricks``, with a personal access token, or with a service
            principal's client id and secret, of Databricks or of Entra.

    Raises:
        ConfigError: Its extra is not a JSON object, its type is different, it has no host, or it
            authenticates in a way that is not supported here.
    """
    name = f"Connection '{connection.conn_id}', which 'databricks_conn_id' names,"
    if connection.conn_type != "databricks":
        raise ConfigError(
            f"{name} is of type '{connection.conn_type}'.", remedy="Name a connection of type 'databricks'."
        )
    extras = connection.require_extras()
    foreign = next((key for key in _FOREIGN if extras.get(key)), None)
    if foreign is not None:
        raise ConfigError(
            f"{name} authenticates with '{foreign}'.",
            remedy="Remove 'databricks_conn_id' and set workspace_host and auth_type, such as azure-msi, "
            "here.",
        )
    host = connection.host or extras.get("host")
    if not host:
        raise ConfigError(f"{name} has no host.", remedy="Set its host to the workspace's URL.")
    return {"workspace_host": host, **_principal(name, connection, extras)}


def _principal(name: str, connection: StoredConnection, extras: Mapping[str, object]) -> dict[str, object]:
    login, secret = connection.login, connection.password
    if extras.get("token"):
        return {"token": extras["token"]}
    if extras.get("azure_tenant_id"):
        if not login or not secret:
            raise ConfigError(
                f"{name} has azure_tenant_id without login and password.",
                remedy="Set them to the Entra service principal's client id and secret.",
            )
        return {
            "azure_client_id": login,
            "azure_client_secret": secret,
            "azure_tenant_id": extras["azure_tenant_id"],
        }
    if _is_true(extras.get("service_principal_oauth")):
        if not login or not secret:
            raise ConfigError(
                f"{name} has service_principal_oauth without login and password.",
                remedy="Set them to the service principal's client id and OAuth secret.",
            )
        return {"client_id": login, "client_secret": secret}
    if not secret:
        raise ConfigError(
            f"{name} has no credentials.", remedy="Set its password to a token, or use a service principal."
        )
    if login and login != "token":
        raise ConfigError(
            f"{name} has a user's name and password, which workspaces no longer accept.",
            remedy="Set extra service_principal_oauth to true for a service principal, or login 'token'.",
        )
    return {"token": secret}


def _is_true(value: object) -> bool:
    # Extras in a URI are text.
    return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "1"))
