"""Neither a token nor a secret may be where somebody else can read it."""

# No "from __future__ import annotations": Dagster reads the annotation of `context` as an object.

import logging
import traceback
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from dagster_shared.serdes import serialize_value
from pydantic import ValidationError

from dagster_lakebase import LakebaseResource, lakebase_health_check_op
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.local import LocalLakebase
from tests.dagster.runs import materialize
from tests.dagster.two_steps import Nested


def test_repr_and_str_show_none() -> None:
    resource = LakebaseResource(
        password="canary-1", client_secret="canary-2", token="canary-3", azure_client_secret="canary-4"
    )
    assert "canary" not in f"{resource!r} {resource}"


def test_a_refused_value_is_not_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        LakebaseResource(client_secret={"value": "canary"}, port="canary")  # type: ignore[arg-type] # the point of the test
    assert "canary" not in str(caught.value)


def test_a_bad_setting_leaves_the_secret_out_of_frames(lakebase_env: LocalLakebase) -> None:
    resource = LakebaseResource(client_secret="team-canary", endpoint="malformed")
    with pytest.raises(ConfigError) as caught:
        _ = resource.lakebase_config
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "team-canary" not in "".join(shown.format())


@pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")  # Dagster's own
def test_a_secret_as_text_works_in_a_run_wherever_it_is_bound(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakebase = LakebaseResource(client_id=lake.client_id, client_secret=lake.client_secret)
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "not-the-secret")

    @dg.asset
    def both(lakebase: LakebaseResource, nested: Nested) -> None:
        for bound in (lakebase, nested.lakebase):
            assert bound.fetch("SELECT current_user") == [(lake.client_id,)]
            assert lake.client_secret not in str(vars(bound))

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [both],
            resources={"lakebase": lakebase, "nested": Nested(lakebase=lakebase)},
            instance=instance,
        )
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.job_snapshot_id is not None
        kept = serialize_value(instance.get_job_snapshot(run.job_snapshot_id))
    assert result.success
    assert lake.client_secret not in kept


@dg.asset
def fine(lakebase: LakebaseResource) -> None:
    with lakebase.get_connection() as conn:
        conn.execute("SELECT 1")


@dg.asset
def wrong_sql(lakebase: LakebaseResource) -> None:
    with lakebase.get_connection() as conn:
        conn.execute("SELECT absent")


@dg.asset
def wrong_engine_sql(lakebase: LakebaseResource) -> None:
    with lakebase.get_engine().connect() as conn:
        conn.exec_driver_sql("SELECT absent")


@dg.asset
def logs_itself(context: dg.AssetExecutionContext, lakebase: LakebaseResource) -> None:
    context.log.info("%r %r %r", lakebase, lakebase.client.config, lakebase.client.tokens.get())
    raise RuntimeError(f"{lakebase} {lakebase.client} {lakebase.get_engine()}")


@dg.job
def health_job() -> None:
    lakebase_health_check_op()


def run_config(lake: LocalLakebase) -> dict[str, Any]:
    """As somebody would type it into the launchpad: the secret by reference."""
    return {"resources": {"lakebase": {"config": {"client_secret": {"env": "DATABRICKS_CLIENT_SECRET"}}}}}


def expire(lake: LocalLakebase) -> None:
    lake.admin.revoke_tokens()
    lake.admin.fault("POST", "/api/2.0/postgres/credentials", status=403, message="refused")


@pytest.mark.parametrize("asset", [fine, wrong_sql, wrong_engine_sql, logs_itself])
@pytest.mark.parametrize("resource", ["fields", "environment", "run config"])
@pytest.mark.parametrize("spoil", [None, expire])
def test_a_run_shows_none(
    lake: LocalLakebase,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    asset: dg.AssetsDefinition,
    resource: str,
    spoil: Callable[[LocalLakebase], None] | None,
) -> None:
    caplog.set_level(logging.DEBUG)
    lakebase: Any = {
        "fields": LakebaseResource(client_secret=dg.EnvVar("DATABRICKS_CLIENT_SECRET")),
        "environment": LakebaseResource(),
        "run config": LakebaseResource.configure_at_launch(),
    }[resource]
    token = LakebaseResource().client.tokens.get().reveal()
    if spoil is not None:
        spoil(lake)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [asset],
            resources={"lakebase": lakebase},
            instance=instance,
            run_config=run_config(lake) if resource == "run config" else None,
            raise_on_error=False,
        )
        events = [serialize_value(entry) for entry in instance.all_logs(result.run_id)]
        run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert result.success == (asset is fine and spoil is None)
    shown = "\n".join([*events, serialize_value(run), caplog.text, *capfd.readouterr()])
    assert len(events) > 5
    for secret in (token, lake.client_secret):
        assert secret not in shown


def test_the_health_op_shows_none(
    lake: LocalLakebase, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with dg.DagsterInstance.ephemeral() as instance:
        result = health_job.execute_in_process(instance=instance, resources={"lakebase": LakebaseResource()})
        events = [serialize_value(entry) for entry in instance.all_logs(result.run_id)]
    shown = "\n".join([*events, str(result.output_for_node("lakebase_health_check_op")), caplog.text])
    shown += "".join(capfd.readouterr())
    for secret in (LakebaseResource().client.tokens.get().reveal(), lake.client_secret):
        assert secret not in shown


def test_an_exception_of_a_run_shows_none(lake: LocalLakebase) -> None:
    with pytest.raises(RuntimeError) as caught:
        materialize([logs_itself], resources={"lakebase": LakebaseResource()})
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (LakebaseResource().client.tokens.get().reveal(), lake.client_secret):
        assert secret not in shown
