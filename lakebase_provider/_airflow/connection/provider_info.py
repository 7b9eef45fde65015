"""What Airflow learns about this provider: its modules, connection form and section of the configuration.

Airflow asks at every start, so nothing but the standard library and the table of settings is imported.
"""

from __future__ import annotations

from typing import Any

from lakebase_provider._airflow.connection.page_options import PAGE_OPTIONS
from lakebase_provider.core.config import settings
from lakebase_provider.version import __version__

_INTEGRATION = "Databricks Lakebase"

#: Settings that the connection form's own columns carry; the other settings are its extra fields.
_COLUMNS = ("host", "port", "database", "user", "password")

#: Fields of the form that are not settings of the core, since they concern only Airflow.
_OF_AIRFLOW = {
    "databricks_conn_id": {
        "label": "Databricks connection",
        "description": "Id of a databricks connection whose workspace and credentials are used.",
        "schema": {"type": ["string", "null"]},
    },
    "cursor": {
        "label": "Rows",
        "description": "dictcursor for dicts, namedtuplecursor for named tuples; tuples if left out.",
        "schema": {"type": ["string", "null"], "enum": ["dictcursor", "namedtuplecursor"]},
    },
}


def get_provider_info() -> dict[str, Any]:
    """What Airflow needs to know about this provider, including its connection form.

    The form's extra fields and the options of ``[lakebase]`` are generated from the table of settings, so
    that a setting is added in one place.

    Returns:
        A mapping as Airflow's ``provider_info.schema.json`` describes it.
    """
    return {
        "package-name": "lakebase-provider",
        "name": _INTEGRATION,
        "description": "Databricks Lakebase (managed Postgres with OAuth passwords).",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.databricks.com/aws/en/oltp/",
                "tags": ["service"],
            }
        ],
        "hooks": [
            {"integration-name": _INTEGRATION, "python-modules": ["lakebase_provider.hooks.lakebase"]},
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "lakebase_provider.operators.branches",
                    "lakebase_provider.operators.health",
                    "lakebase_provider.operators.load",
                    "lakebase_provider.operators.maintenance",
                    "lakebase_provider.operators.migrate",
                    "lakebase_provider.operators.rehearse",
                    "lakebase_provider.operators.restore_rows",
                    "lakebase_provider.operators.sql",
                    "lakebase_provider.operators.sync",
                    "lakebase_provider.operators.transfer",
                    "lakebase_provider.operators.unload",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "lakebase_provider.sensors.branches",
                    "lakebase_provider.sensors.health",
                    "lakebase_provider.sensors.sql",
                    "lakebase_provider.sensors.sync",
                ],
            }
        ],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "lakebase_provider.triggers.branches",
                    "lakebase_provider.triggers.polling",
                    "lakebase_provider.triggers.sql",
                    "lakebase_provider.triggers.sync",
                ],
            }
        ],
        "task-decorators": [
            {
                "name": "lakebase_sql",
                "class-name": "lakebase_provider.decorators.sql.lakebase_sql_task",
            }
        ],
        "notifications": ["lakebase_provider.notifications.diagnosis.LakebaseDiagnosisNotifier"],
        "extra-links": [
            "lakebase_provider.links.console.LakebaseConsoleLink",
            "lakebase_provider.links.console.LakebasePipelineLink",
        ],
        "asset-uris": [
            {
                "schemes": ["lakebase"],
                "handler": "lakebase_provider.assets.sanitize_uri",
                "factory": "lakebase_provider.assets.create_asset",
                "to_openlineage_converter": "lakebase_provider.assets.convert_asset_to_openlineage",
            },
            {
                "schemes": ["unitycatalog"],
                "handler": "lakebase_provider.assets.sanitize_unity_catalog_uri",
                "factory": "lakebase_provider.assets.create_unity_catalog_asset",
                "to_openlineage_converter": "lakebase_provider.assets.convert_unity_catalog_to_openlineage",
            },
        ],
        "config": {
            "lakebase": {
                "description": "Settings for all connections of type lakebase; a connection's own settings "
                "take precedence.",
                "options": {
                    row.name: {
                        "description": row.description,
                        "version_added": "0.1.0",
                        "type": {"number": "float"}.get(row.kind, row.kind),
                        "example": None,
                        "default": None,
                    }
                    for row in settings()
                    if row.of_deployment
                }
                | PAGE_OPTIONS,
            }
        },
        "connection-types": [
            {
                "connection-type": "lakebase",
                "hook-name": _INTEGRATION,
                "hook-class-name": "lakebase_provider.hooks.lakebase.LakebaseHook",
                "ui-field-behaviour": {
                    "hidden-fields": [],
                    "relabeling": {
                        "schema": "Database",
                        "login": "Client ID or user",
                        "password": "Client secret or native password",
                    },
                    "placeholders": {
                        "host": "resolved from the endpoint",
                        "port": "5432",
                        "schema": "databricks_postgres",
                        "login": "application id of the service principal",
                    },
                },
                "conn-fields": {
                    **{
                        row.name: {
                            "label": row.label,
                            "description": row.help(),
                            "schema": row.json_schema(),
                        }
                        for row in settings()
                        if row.name not in _COLUMNS
                    },
                    **_OF_AIRFLOW,
                },
            }
        ],
    }
