"""Airflow's simple auth manager, and one user more: `reader` may read connections, and not edit them."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class WithReader(SimpleAuthManager):
    def is_authorized_connection(self, *, method: Any, user: Any, details: Any = None) -> bool:
        if user.username == "reader":
            return bool(method == "GET")
        return super().is_authorized_connection(method=method, user=user, details=details)
