"""The options of ``[lakebase]`` that are about the page in Airflow's web interface, and no connection's."""

from __future__ import annotations

from typing import Any

#: As provider.yaml describes options.
PAGE_OPTIONS: dict[str, dict[str, Any]] = {
    "page": {
        "description": "Whether the web interface has a page of the connections of type lakebase.",
        "version_added": "0.1.0",
        "type": "boolean",
        "example": None,
        "default": "True",
    },
    "page_folder": {
        "description": "Folder in which the page keeps what it has seen, shared by all API servers; if "
        "left out, nothing is kept.",
        "version_added": "0.1.0",
        "type": "string",
        "example": "/opt/airflow/lakebase",
        "default": None,
    },
    "page_connections": {
        "description": "Ids of connections that the page shows besides those in the metadata database and "
        "in the environment, such as those of a secrets backend, with commas between them.",
        "version_added": "0.1.0",
        "type": "string",
        "example": "lakebase_prod, lakebase_dev",
        "default": None,
    },
}
