"""A real Dagster deployment on this machine: `dg dev` with its web server, daemon and code server."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.eventually import eventually
from tests.ui.conftest import Service, free_port

#: Seconds for a run to end, on a machine with two cores that does other things as well.
PATIENCE = 400.0
_LOOK_EVERY = 0.5
_INSTANCE = """
telemetry: {enabled: false}
nux: {enabled: false}
concurrency: {runs: {max_concurrent_runs: 4}}
sensors: {use_threads: true, num_workers: 2}
"""
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")


class Run(NamedTuple):
    """A run as Dagster's API tells it."""

    run_id: str
    status: str
    job: str
    assets: tuple[str, ...]
    partition: str | None


class Tick(NamedTuple):
    """A look of a sensor, its times in seconds since 1970, and what it said."""

    status: str
    began: float
    ended: float
    message: str | None


class DagsterSite:
    """A Dagster whose runs, events and schedules lie in SQLite, as those of `dg dev` do.

    Args:
        definitions: The Python file of the code location.
        home: A folder of its own.
        env: Variables for all processes, credentials among them.
    """

    def __init__(self, definitions: Path, home: Path, env: Mapping[str, str]) -> None:
        self.home = home
        (home / "dagster.yaml").write_text(_INSTANCE)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.location = definitions.name
        foreign = ("DAGSTER", "LAKEBASE_", "PG", "DATABRICKS_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self._service = Service(
            ["-m", "dagster_dg_cli.cli", "dev", "-f", str(definitions), "-h", "127.0.0.1", "-p", str(port)],
            home / "dev.log",
            {**inherited, **env, "DAGSTER_HOME": str(home)},
        )

    def wait(self) -> None:
        """Wait until the web server answers, the code is loaded and the daemon is at work."""
        self._service.wait_for(f"{self.url}/server_info")
        eventually(self._is_ready, within=PATIENCE, every=_LOOK_EVERY)

    def _is_ready(self) -> bool:
        found = self.ask(
            """{ workspaceOrError { ... on Workspace { locationEntries { loadStatus
                locationOrLoadError { __typename ... on PythonError { message } } } } }
                instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"""
        )
        for entry in found["workspaceOrError"]["locationEntries"]:
            loaded = entry["locationOrLoadError"] or {"__typename": None}
            assert loaded["__typename"] != "PythonError", loaded["message"]
            if entry["loadStatus"] != "LOADED":
                return False
        daemons = found["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(daemon["healthy"] for daemon in daemons if daemon["required"])

    def stop(self) -> None:
        """End all processes."""
        self._service.stop()

    def log(self) -> str:
        """What all processes printed."""
        return (self.home / "dev.log").read_text(errors="replace")

    def ask(self, query: str, **variables: Any) -> Any:
        """What the API answers to a query or mutation of GraphQL."""
        request = urllib.request.Request(  # noqa: S310 # loopback, http
            f"{self.url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310 # loopback, http
            answer = json.load(response)
        assert not answer.get("errors"), answer["errors"]
        return answer["data"]

    def runs(self) -> list[Run]:
        """All runs, the latest first."""
        found = self.ask(
            """{ runsOrError { ... on Runs { results {
                runId status jobName assetSelection { path } tags { key value } } } } }"""
        )
        return [
            Run(
                run["runId"],
                run["status"],
                run["jobName"],
                tuple("/".join(key["path"]) for key in run["assetSelection"] or ()),
                next((tag["value"] for tag in run["tags"] if tag["key"] == "dagster/partition"), None),
            )
            for run in found["runsOrError"]["results"]
        ]

    def ended(self, run_id: str) -> str:
        """Wait for a run to end, and return its status."""
        query = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        status = ""

        def ends() -> bool:
            nonlocal status
            status = self.ask(query, id=run_id)["runOrError"]["status"]
            return status in _ENDED

        eventually(ends, within=PATIENCE, every=_LOOK_EVERY)
        return status

    def failures(self, run_id: str) -> str:
        """What failed in a run, for the message of a test that did not expect it."""
        found = self.ask(
            """query Log($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
                ... on ErrorEvent { error { message causes { message } } } } } } }""",
            id=run_id,
        )
        errors = [event["error"] for event in found["logsForRun"]["events"] if event.get("error")]
        return json.dumps(errors, indent=1)

    def output_metadata(self, run_id: str) -> dict[str, Any]:
        """The texts and whole numbers in the metadata of a run's outputs."""
        found = self.ask(
            """query Outputs($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
                ... on ExecutionStepOutputEvent { metadataEntries { label
                    ... on TextMetadataEntry { text } ... on IntMetadataEntry { intValue } } } } } } }""",
            id=run_id,
        )
        return {
            entry["label"]: entry.get("text", entry.get("intValue"))
            for event in found["logsForRun"]["events"]
            for entry in event.get("metadataEntries", ())
        }

    def backfill_status(self) -> str | None:
        """The status of the latest backfill; None where there is none yet."""
        found = self.ask("{ partitionBackfillsOrError { ... on PartitionBackfills { results { status } } } }")
        return next((backfill["status"] for backfill in found["partitionBackfillsOrError"]["results"]), None)

    def observed_version(self, *key: str) -> str | None:
        """The data version of an asset's latest observation; None where there is none yet."""
        found = self.ask(
            """query Observed($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
                assetObservations(limit: 1) { tags { key value } } } } }""",
            key={"path": key},
        )
        observations = found["assetOrError"].get("assetObservations") or [{"tags": []}]
        tags = {tag["key"]: tag["value"] for tag in observations[0]["tags"]}
        return tags.get("dagster/data_version")

    def ticks(self, sensor: str) -> list[Tick]:
        """The ticks of a sensor that have ended, the latest first."""
        found = self.ask(
            """query Ticks($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
                ... on Sensor { sensorState { ticks(limit: 500) {
                    status timestamp endTimestamp skipReason error { message } } } } } }""",
            selector={
                "repositoryName": "__repository__",
                "repositoryLocationName": self.location,
                "sensorName": sensor,
            },
        )
        return [
            Tick(
                tick["status"],
                tick["timestamp"],
                tick["endTimestamp"],
                tick["error"]["message"] if tick["error"] else tick["skipReason"],
            )
            for tick in found["sensorOrError"]["sensorState"]["ticks"]
            if tick["endTimestamp"] is not None
        ]

    def wait_for_ticks(self, sensor: str, count: int = 2) -> None:
        """Wait until a sensor has begun and ended so many ticks from now on."""
        earlier = {tick.began for tick in self.ticks(sensor)}
        last = max(earlier, default=0.0)

        def ticked() -> bool:
            # One may be under way already.
            return len([tick for tick in self.ticks(sensor) if tick.began > last]) > count

        eventually(ticked, within=PATIENCE, every=_LOOK_EVERY)
