"""Clients on branches, for tests."""

from __future__ import annotations

from lakebase_provider.core import LakebaseClient


def on(client: LakebaseClient, branch: str) -> LakebaseClient:
    return LakebaseClient(client.config.on_branch(branch))


def has_table(client: LakebaseClient, name: str) -> bool:
    with client.connection() as connection:
        [[found]] = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchall()
        return bool(found)
