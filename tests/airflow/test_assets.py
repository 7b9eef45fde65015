from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from airflow.sdk import Asset

from lakebase_provider.assets import (
    convert_asset_to_openlineage,
    create_asset,
    create_unity_catalog_asset,
    sanitize_unity_catalog_uri,
    sanitize_uri,
)

HOST = "ep-1.database.cloud.databricks.com"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (f"lakebase://{HOST}/db/public/orders", f"lakebase://{HOST}:5432/db/public/orders"),
        (f"lakebase://{HOST.upper()}:5433/db/public/orders", f"lakebase://{HOST}:5433/db/public/orders"),
        (f"lakebase://{HOST}/db/public/Année", f"lakebase://{HOST}:5432/db/public/Ann%C3%A9e"),
    ],
)
def test_each_table_has_one_uri(written: str, kept: str) -> None:
    assert Asset(uri=written).uri == kept
    assert Asset(uri=kept).uri == kept


@pytest.mark.parametrize(
    "uri",
    [
        "lakebase:///db/public/orders",
        f"lakebase://{HOST}/db/orders",
        f"lakebase://{HOST}/db/public/",
        f"lakebase://{HOST}/db/public/orders/more",
        f"lakebase://{HOST}/db/public/orders?sslmode=require",
    ],
)
def test_what_names_no_table_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"lakebase://host\[:port\]/database/schema/table"):
        Asset(uri=uri)


def test_a_password_gets_nowhere() -> None:
    uri = f"lakebase://user:canary@{HOST}/db/public/orders"
    with pytest.warns(UserWarning, match="should not contain a password"):
        assert "canary" not in Asset(uri=uri).uri
    with pytest.raises(ValueError, match="neither user nor password") as caught:
        sanitize_uri(urlsplit(uri))
    assert "canary" not in str(caught.value)


def test_an_asset_meets_the_datasets_of_sql() -> None:
    asset = create_asset(host=HOST, table="my table", schema="sales", extra={"owner": "sales"})
    assert asset.uri == f"lakebase://{HOST}:5432/databricks_postgres/sales/my%20table"
    assert asset.extra == {"owner": "sales"}
    dataset = convert_asset_to_openlineage(asset, None)
    assert (dataset.namespace, dataset.name) == (
        f"postgres://{HOST}:5432",
        "databricks_postgres.sales.my table",
    )


def test_openlineage_finds_the_converter() -> None:
    from airflow.providers.openlineage.utils.utils import translate_airflow_asset

    dataset = translate_airflow_asset(Asset(uri=f"lakebase://{HOST}/db/public/orders"), None)
    assert dataset is not None
    assert dataset.namespace == f"postgres://{HOST}:5432"


# Of the Unity Catalog.

WORKSPACE = "w.cloud.databricks.com"


def test_each_table_of_the_unity_catalog_has_one_uri() -> None:
    kept = f"unitycatalog://{WORKSPACE}/main/src/trips"
    assert Asset(uri=f"unitycatalog://{WORKSPACE.upper()}/Main/src/Trips").uri == kept
    assert (
        create_unity_catalog_asset(workspace=WORKSPACE, catalog="main", schema="src", table="trips").uri
        == kept
    )
    for wrong in (
        f"unitycatalog://{WORKSPACE}/main/trips",
        f"{kept}?version=1",
        "unitycatalog:///main/src/trips",
    ):
        with pytest.raises(ValueError, match="unitycatalog://workspace/catalog/schema/table"):
            Asset(uri=wrong)
    with pytest.raises(ValueError, match="neither user nor password") as caught:
        sanitize_unity_catalog_uri(urlsplit(f"unitycatalog://user:canary@{WORKSPACE}/main/src/trips"))
    assert "canary" not in str(caught.value)


def test_it_meets_the_datasets_of_databricks() -> None:
    from airflow.providers.openlineage.utils.utils import translate_airflow_asset

    dataset = translate_airflow_asset(Asset(uri=f"unitycatalog://{WORKSPACE}/main/src/trips"), None)
    assert dataset is not None
    assert (dataset.namespace, dataset.name) == (f"databricks://{WORKSPACE}", "main.src.trips")
