"""Data APIs: what they are set to stays with their database, and ends with it."""

from __future__ import annotations

import pytest
from databricks.sdk.errors import NotFound
from databricks.sdk.service.postgres import (
    DataApi,
    DataApiDataApiSpec,
    Database,
    DatabaseDatabaseSpec,
    Role,
    RoleRoleSpec,
)

from .conftest import PRODUCTION, Plane

NAME = f"{PRODUCTION}/databases/shop"


def test_a_data_api_stays_with_its_database(plane: Plane) -> None:
    role = Role(spec=RoleRoleSpec(postgres_role="shop_owner"))
    owner = str(plane.api.create_role(PRODUCTION, role, role_id="shop-owner").wait().name)
    database = Database(spec=DatabaseDatabaseSpec(postgres_database="shop", role=owner))
    plane.api.create_database(PRODUCTION, database, database_id="shop").wait()
    made = plane.api.create_data_api(NAME, DataApi(spec=DataApiDataApiSpec(db_max_rows=7))).wait()
    assert (made.name, made.parent) == (f"{NAME}/data-api", NAME)
    plane.send("PATCH", NAME, {"spec": {"postgres_database": "store"}}, update_mask="spec.postgres_database")
    status = plane.api.get_data_api(f"{NAME}/data-api").status
    assert status is not None
    assert (status.db_max_rows, str(status.url).rpartition("/")[2]) == (7, "store")
    plane.admin.execute("CREATE SCHEMA more", database="store")
    done = plane.send("PATCH", f"{NAME}/data-api", {"spec": {}}, update_mask="spec")["name"]
    assert plane.send("GET", done)["response"]["status"]["available_schemas"] == ["more", "public"]
    plane.api.delete_database(NAME).wait()
    with pytest.raises(NotFound, match="database id not found"):
        plane.api.get_data_api(f"{NAME}/data-api")
    plane.api.create_database(PRODUCTION, database, database_id="shop").wait()
    with pytest.raises(NotFound, match="data api not found"):
        plane.api.get_data_api(f"{NAME}/data-api")
    plane.api.delete_database(NAME).wait()
    plane.api.delete_role(owner).wait()
