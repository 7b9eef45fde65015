"""Which connection a subclass of the hook means, in each way in which PostgresHook lets it be told."""

from __future__ import annotations

from typing import Any

import pytest

from lakebase_provider.core.config import setting
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.hooks.lakebase import LakebaseHook
from lakebase_provider.local import LocalLakebase
from tests.airflow.conftest import connection_fields, define


class OtherName(LakebaseHook):
    conn_name_attr = "my_conn_id"


class OtherDefault(LakebaseHook):
    default_conn_name = "other"


class Both(LakebaseHook):
    conn_name_attr = "my_conn_id"
    default_conn_name = "other"


class OwnConstructor(LakebaseHook):
    conn_name_attr = "my_conn_id"

    def __init__(self, *args: Any, my_conn_id: str = "other", **kwargs: Any) -> None:
        super().__init__(*args, **{"my_conn_id": my_conn_id, **kwargs})


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        (lambda: LakebaseHook(), "lakebase_default"),
        (lambda: LakebaseHook(None), "lakebase_default"),
        (lambda: LakebaseHook("third"), "third"),
        (lambda: LakebaseHook(lakebase_conn_id="third"), "third"),
        (lambda: OtherName(), "lakebase_default"),
        (lambda: OtherName("third"), "third"),
        (lambda: OtherName(my_conn_id="third"), "third"),
        (lambda: OtherName(lakebase_conn_id="third"), "third"),
        (lambda: OtherName("third", my_conn_id="third"), "third"),
        (lambda: OtherDefault(), "other"),
        (lambda: OtherDefault("third"), "third"),
        (lambda: OtherDefault(lakebase_conn_id="third"), "third"),
        (lambda: Both(), "other"),
        (lambda: Both(my_conn_id="third"), "third"),
        (lambda: Both("third", schema="postgres"), "third"),
        (lambda: OwnConstructor(), "other"),
        (lambda: OwnConstructor(my_conn_id="third", schema="postgres"), "third"),
    ],
)
async def test_the_connection_is_the_one_that_is_named(
    lake: LocalLakebase, monkeypatch: pytest.MonkeyPatch, hook: Any, expected: str
) -> None:
    for name in ("other", "third"):
        define(monkeypatch, name, **connection_fields(lake, extra={"application_name": name}))
    made = hook()
    assert made.get_conn_id() == expected
    assert getattr(made, made.conn_name_attr) == expected
    shown = "select current_setting('application_name')"
    name = {"other": "other", "third": "third"}.get(expected, setting("application_name").default)
    assert made.get_first(shown) == (name,)
    again = hook()
    assert await again.aget_first(shown) == (name,)
    await again.client.aclose()


def test_two_connections_at_once_are_refused(lake: LocalLakebase) -> None:
    with pytest.raises(ConfigError, match=r"'third' and, by my_conn_id, 'other'"):
        OtherName("third", my_conn_id="other")
