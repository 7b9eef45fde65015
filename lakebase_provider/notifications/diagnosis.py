"""Tells whoever has to do something about a failed task why it failed, and how the database is now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseNotifier

from lakebase_provider._airflow.task.arguments import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from airflow.sdk import Context

    from lakebase_provider.core.client import LakebaseClient

#: The key of the context under which other notifiers find the diagnosis.
_KEY = "lakebase_diagnosis"


class LakebaseDiagnosisNotifier(BaseNotifier):
    """Diagnoses a failure on Lakebase, and hands the diagnosis on: to the log, or to other notifiers.

    It says what the task failed with and what to do about it, who held the lock that it waited for, whether
    the database is reachable now and which stage fails if not, and what holds up others in it. Notifiers that
    follow find it in their templates as ``lakebase_diagnosis``, with ``markdown``, ``text`` and its parts.

    Args:
        conn_id: Id of the Airflow connection (templated); by default the failed task's own, or else
            ``lakebase_default``.
        then: A notifier, or a function of the context, that is called with the diagnosis in it; or several.
            Without any it is written to the log.
        timeout: Seconds that a stage of the health check may take.

    Example:
        >>> slack = SlackWebhookNotifier(text="{{ lakebase_diagnosis.markdown }}")
        >>> LakebaseSqlOperator(..., on_failure_callback=LakebaseDiagnosisNotifier(then=slack))
    """

    template_fields: Sequence[str] = ("conn_id",)

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        then: Callable[[Context], object] | Sequence[Callable[[Context], object]] = (),
        timeout: float = 10.0,
    ) -> None:
        super().__init__()
        from lakebase_provider.core.config import arguments

        self.conn_id = conn_id
        self.then: Sequence[Callable[[Context], object]] = [then] if callable(then) else then
        self.timeout = arguments.timeout(timeout)

    def notify(self, context: Context) -> None:
        """Diagnose it, and hand the diagnosis on; one that cannot be told does not hold up the others."""
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.core.upkeep.telling.diagnosis import diagnose

        task = context.get("task")
        conn_id = self.conn_id or getattr(task, "conn_id", None) or DEFAULT_CONN_ID
        found = diagnose(
            lambda: _client(conn_id),
            _name(context),
            context.get("exception") or _reason(context),
            links=_links(context, conn_id),
            timeout=self.timeout,
        )
        if not self.then:
            self.log.error("%s", found.to_text())
            return
        told: Any = {
            **context,
            _KEY: {**found.to_dict(), "text": found.to_text(), "markdown": found.to_markdown()},
        }
        failures = []
        for other in self.then:
            try:
                other(told)
            except Exception as error:
                self.log.exception("The diagnosis was not told by %r", other)
                failures.append(error)
        if failures:
            self.log.error("%s", found.to_text())
            raise failures[0]


def _client(conn_id: str) -> LakebaseClient:
    from lakebase_provider.hooks.lakebase import LakebaseHook

    return LakebaseHook(conn_id).client


def _name(context: Any) -> str:
    instance = context.get("ti") or context.get("task_instance")
    if instance is None:
        run = context.get("dag_run")
        return f"DAG {getattr(run, 'dag_id', None) or getattr(context.get('dag'), 'dag_id', '')}"
    return f"Task {instance.dag_id}.{instance.task_id}, try {instance.try_number}, of {instance.run_id}"


def _reason(context: Any) -> str | None:
    reason = context.get("reason")
    return None if reason is None else str(reason)


def _links(context: Any, conn_id: str) -> dict[str, str]:
    from lakebase_provider.links.console import console_url

    links: dict[str, str] = {}
    log = getattr(context.get("ti"), "log_url", None)
    if log:
        links["Log of the task"] = str(log)
    try:
        from lakebase_provider.hooks.lakebase import LakebaseHook

        console = console_url(LakebaseHook(conn_id).config)
    except Exception:  # of any backend of secrets: the diagnosis, which goes out, says what is wrong with it
        console = ""
    return {**links, "Lakebase console": console} if console else links
