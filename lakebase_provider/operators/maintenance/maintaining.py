"""What operators of maintenance share: the connection, how long they wait, and the report."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from lakebase_provider._airflow.task.arguments import (
    LakebaseArguments,
    conn_id_of,
    require_hook_params,
)
from lakebase_provider._airflow.task.failing_fast import UnwindingOnKill, failing_fast
from lakebase_provider.core.upkeep.maintenance.maintenance_options import (
    ATTEMPTS,
    LOCK_TIMEOUT,
    PATIENCE,
    TIMEOUT,
    require_options,
)
from lakebase_provider.links import LakebaseConsoleLink

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from lakebase_provider.hooks.lakebase import LakebaseHook


class MaintainingOperator(UnwindingOnKill, LakebaseArguments, BaseOperator):
    """Does maintenance, and returns the report: a :class:`.MaintenanceReport` as a dict, with ``markdown``.

    It works in a session of its own, and may be retried: what is done is left alone, and what a killed try
    has left is finished or removed. A synced table is left alone, except for its indexes.

    Args:
        conn_id: Id of the Airflow connection (templated); ``lakebase_default`` by default.
        lakebase_conn_id: An alias of `conn_id`.
        branch: Name or id of a branch on which to work, instead of the connection's own (templated).
        lock_timeout: Seconds that a statement waits for a lock for which others would queue.
        attempts: How many times it is tried that gets none.
        timeout: Seconds that all of it may take.
        hook_params: Settings that take precedence over the connection's.
        kwargs: Arguments of ``BaseOperator``.

    Raises:
        ConfigError: An argument is malformed; when the DAG is parsed.
        AirflowFailException: When the task fails in a way that a retry cannot help.
        LakebaseError: When the task fails and a retry may help; of a lock, it names the holder.
    """

    template_fields: Sequence[str] = ("conn_id", "branch")
    operator_extra_links = (LakebaseConsoleLink(),)
    #: Arguments that are options of the method.
    options: ClassVar[Sequence[str]] = ()

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        lakebase_conn_id: str | None = None,
        branch: str | None = None,
        lock_timeout: float = LOCK_TIMEOUT,
        attempts: int = ATTEMPTS,
        timeout: float = TIMEOUT,
        hook_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"multiple_outputs": True, **kwargs})
        self.conn_id = conn_id_of(conn_id, lakebase_conn_id, kwargs.get("default_args"))
        self._take_branch(branch)
        self.lock_timeout = lock_timeout
        self.attempts = attempts
        self.timeout = timeout
        self.hook_params = hook_params

    def _check_options(self) -> None:
        self._check_own_arguments((*self.options, *PATIENCE, "hook_params"))

    @classmethod
    def _check_arguments(cls, given: Mapping[str, Any]) -> None:
        require_hook_params(given.get("hook_params"))
        require_options({name: value for name, value in given.items() if name in (*cls.options, *PATIENCE)})

    def get_db_hook(self) -> LakebaseHook:
        """The hook of the connection that is maintained."""
        # The hook brings the driver; parsing a DAG must not.
        from lakebase_provider.hooks.lakebase import LakebaseHook

        return LakebaseHook(self.conn_id, **{**(self.hook_params or {}), **self._branch_setting})

    @abstractmethod
    def _method(self) -> str:
        """The method of ``client.maintenance``."""

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.options}

    def execute(self, context: Context) -> dict[str, Any]:
        """Do it and return the report."""
        with failing_fast(), self._unwinding():
            patience = {name: getattr(self, name) for name in PATIENCE}
            work = getattr(self.get_db_hook().client.maintenance, self._method())
            report = work(**self._options(), **patience)
        markdown = report.to_markdown()
        self.log.info("%s", markdown)
        return {**report.to_dict(), "markdown": markdown}

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """No rows are read or written that anybody put there."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage()
