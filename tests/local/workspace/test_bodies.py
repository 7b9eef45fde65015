"""Bodies of every shape: an answer in the API's form, and none of them is the server's failure."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebase_provider.local.workspace.kinds import KINDS
from tests.depth import examples
from tests.local.workspace.conftest import PRODUCTION, PROJECT, Plane

#: Collection and one object of each kind; none of the latter but production exists.
PLACES = {
    "project": ("projects", PROJECT),
    "branch": (f"{PROJECT}/branches", PRODUCTION),
    "endpoint": (f"{PRODUCTION}/endpoints", f"{PRODUCTION}/endpoints/primary"),
    "role": (f"{PRODUCTION}/roles", f"{PRODUCTION}/roles/r-1"),
    "database": (f"{PRODUCTION}/databases", f"{PRODUCTION}/databases/d-1"),
    "snapshot": (f"{PROJECT}/snapshots", None),
    "catalog": ("catalogs", None),
    "data_api": (f"{PRODUCTION}/databases/databricks-postgres/data-api",) * 2,
    "synced_table": ("synced_tables", None),
    "cdf_config": (f"{PRODUCTION}/databases/databricks-postgres/cdf-configs", None),
    "snapshot_schedule": (None, f"{PRODUCTION}/snapshot-schedule"),
}
WORDS = {part for kind in KINDS.values() for path in kind.fields for part in path.split(".")}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["60s", f"{'9' * 400}s", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z", "0/1", "\0"]
    )
    | st.sampled_from([PROJECT, PRODUCTION, "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(WORDS)) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=8,
)
BODIES = VALUES | st.fixed_dictionaries({"spec": st.dictionaries(st.sampled_from(sorted(WORDS)), VALUES)})


def answer(plane: Plane, method: str, path: str, body: bytes) -> tuple[int, Any]:
    token = plane.server.pat
    connection = http.client.HTTPConnection(urlsplit(plane.url).netloc, timeout=30)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.deep
@settings(max_examples=examples(8, 100), deadline=None, suppress_health_check=list(HealthCheck))
@given(body=BODIES)
def test_every_body_has_an_answer(plane: Plane, kind: str, body: Any) -> None:
    collection, one = PLACES[kind]
    sent = json.dumps(body).encode()
    requests = []
    if collection:
        made = "main.pub.made" if kind == "synced_table" else "made"
        requests.append(("POST", f"{collection}?{kind}_id={made}"))
    if one and KINDS[kind].masks:
        requests.append(("PATCH", f"{one}?update_mask={','.join(sorted(KINDS[kind].masks))}"))
    for method, path in requests:
        status, said = answer(plane, method, f"/api/2.0/postgres/{path}", sent)
        assert status < 500, said
        assert isinstance(said, dict)
        assert status == 200 or {"error_code", "message"} <= said.keys()


@pytest.mark.deep
@settings(max_examples=examples(8, 100), deadline=None, suppress_health_check=list(HealthCheck))
@given(body=VALUES | st.fixed_dictionaries({"endpoint": VALUES, "ttl": VALUES, "instance_names": VALUES}))
def test_credentials_too(plane: Plane, body: Any) -> None:
    for path in ("/api/2.0/postgres/credentials", "/api/2.0/database/credentials"):
        status, said = answer(plane, "POST", path, json.dumps(body).encode())
        assert status < 500, said
        assert isinstance(said, dict)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ('{"spec": [1]}', "INVALID_PARAMETER_VALUE", "Field 'spec' must be an object"),
        ('{"spec": ""}', "INVALID_PARAMETER_VALUE", "Field 'spec' must be an object"),
        ("[1]", "MALFORMED_REQUEST", "no JSON object"),
        ("null", "MALFORMED_REQUEST", "no JSON object"),
        ('{"spec": {"ttl": NaN}}', "MALFORMED_REQUEST", "no JSON"),
        ("{", "MALFORMED_REQUEST", "no JSON"),
        ('{"spec": {"ttl": null}}', "INVALID_PARAMETER_VALUE", "Expiration must be specified"),
    ],
)
def test_shapes(plane: Plane, body: str, code: str, message: str) -> None:
    status, said = answer(plane, "POST", f"/api/2.0/postgres/{PROJECT}/branches?branch_id=x", body.encode())
    assert (status, said["error_code"]) == (400, code)
    assert message in said["message"]


def test_numbers_are_written_as_people_write_them(plane: Plane) -> None:
    body = b'{"spec": {"history_retention_duration": "5s"}}'
    path = f"/api/2.0/postgres/{PROJECT}?update_mask=spec.history_retention_duration"
    assert "between 172800 and 3024000" in answer(plane, "PATCH", path, body)[1]["message"]


def test_faults_that_cannot_be(plane: Plane) -> None:
    faults = ("status", 99999), ("status", 99), ("times", -1), ("times", 0), ("hang", -3), ("retry_after", -1)
    for name, value in faults:
        with pytest.raises(ValueError, match=f"a fault's {name} must be"):
            plane.admin.fault("GET", "*", **{"status": 503, name: value})  # type: ignore[arg-type]
    for call in (
        lambda: plane.admin.crash_postgres(downtime=-1),
        lambda: plane.admin.operation_fault(times=-1),
        lambda: plane.admin.login_fault("no such luck", times=-1),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()
