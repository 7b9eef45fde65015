"""A real API server of Airflow with its users, for the page: asked as a browser asks, or by a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

from lakebase_provider.core.config.allowed_hosts import ALLOW_LOOPBACK
from lakebase_provider.local import LocalLakebase
from tests.ui.conftest import Service, free_port

ROOT = Path(__file__).parent.parent.parent
USERS = ("viewer", "user", "op", "admin", "reader")
WRONG = "dose-not-the-secret"


@dataclass
class Answer:
    status: int
    headers: HTTPMessage
    text: str

    def forms(self) -> list[dict[str, str]]:
        """The hidden fields of each form."""
        fields = r'<input type="hidden" name="(\w+)" value="([^"]*)">'
        return [dict(re.findall(fields, form)) for form in re.findall(r"<form.*?</form>", self.text)]

    def form(self, **wanted: str) -> dict[str, str]:
        """The one form with these fields."""
        (found,) = [one for one in self.forms() if wanted.items() <= one.items()]
        return found


class _Straight(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


@dataclass
class Visitor:
    """Somebody with a browser: keeps cookies, and says of forms where they come from.

    Args:
        root: The page's URL, with its slash.
        cookies: What the browser has.
    """

    root: str
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str = "") -> Answer:
        return self._ask(path, None, {})

    def post(self, path: str, form: Mapping[str, str], **headers: str) -> Answer:
        given = {name.replace("_", "-"): text for name, text in headers.items()}
        said = {name: text for name, text in {"Sec-Fetch-Site": "same-origin", **given}.items() if text}
        return self._ask(path, urllib.parse.urlencode(form).encode(), said)

    def _ask(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        request = urllib.request.Request(  # noqa: S310 # loopback, http
            self.root + path, data=body, headers={**headers, **({"Cookie": cookies} if cookies else {})}
        )
        try:
            with urllib.request.build_opener(_Straight).open(request, timeout=60) as found:
                answer = Answer(found.status, found.headers, found.read().decode())
        except urllib.error.HTTPError as error:
            answer = Answer(error.code, error.headers, error.read().decode())
        for line in answer.headers.get_all("Set-Cookie") or ():
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer


class PageSite:
    """An API server with the page, and connections to a local Lakebase: one is well, one has a wrong secret.

    Args:
        home: A folder of its own.
        database: A metadata database to copy.
        lake: Where the connections lead.
        path: The path of its base URL.
        env: Further variables.
    """

    def __init__(
        self, home: Path, database: Path, lake: LocalLakebase, *, path: str = "", **env: str
    ) -> None:
        self._port = free_port()
        self.origin = f"http://127.0.0.1:{self._port}"
        self.url = f"{self.origin}{path}"
        self.page = f"{self.url}/lakebase/"
        shutil.copy(database, home / "airflow.db")
        (home / "passwords.json").write_text(json.dumps({name: f"of-{name}" for name in USERS}))
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW", "LAKEBASE_", "PG", "DATABRICKS_"))
        }
        fields = json.loads(lake.airflow_connection())
        roles = ",".join(f"{name}:{'viewer' if name == 'reader' else name}" for name in USERS)
        self.env = {
            **inherited,
            "PYTHONPATH": os.pathsep.join((str(ROOT), inherited.get("PYTHONPATH", ""))),
            ALLOW_LOOPBACK: "1",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__AUTH_MANAGER": "tests.airflow.page_readers.WithReader",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": roles,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API_AUTH__JWT_SECRET": "made up for this test, " * 4,
            "AIRFLOW__OPENLINEAGE__DISABLED": "True",
            "AIRFLOW__LAKEBASE__PAGE_FOLDER": str(home / "looks"),
            "AIRFLOW_CONN_LAKEBASE_SICK": json.dumps({**fields, "password": WRONG}),
            "AIRFLOW_CONN_OTHER": "postgres://somebody@elsewhere/db",
            **env,
        }
        self._add("lakebase_shop", lake.airflow_connection())
        self._service = Service(
            [
                "-m",
                "airflow",
                "api-server",
                "--host",
                "127.0.0.1",
                "--port",
                str(self._port),
                "--workers",
                "1",
            ],
            home / "api.log",
            self.env,
        )

    def _add(self, conn_id: str, fields: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "connections", "add", conn_id, "--conn-json", fields],
            env=self.env, check=False, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]

    def wait(self) -> None:
        """Wait until it answers."""
        self._service.wait_for(f"{self.url}/api/v2/monitor/health")

    def stop(self) -> None:
        """End it."""
        self._service.stop()

    def log(self) -> str:
        """The end of what it has logged."""
        return self._service.tail()

    def token(self, name: str) -> str:
        """What Airflow gives a user who logs in."""
        body = json.dumps({"username": name, "password": f"of-{name}"}).encode()
        request = urllib.request.Request(  # noqa: S310 # loopback, http
            f"{self.url}/auth/token", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 # loopback, http
            return str(json.load(answer)["access_token"])

    def visitor(self, name: str | None) -> Visitor:
        """A user who has logged in; with None, somebody who has not."""
        return Visitor(self.page, {} if name is None else {"_token": self.token(name)})
