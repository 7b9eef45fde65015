"""``@task.lakebase_sql``: a function returns the SQL, and the operator runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)
from airflow.sdk.definitions._internal.types import SET_DURING_EXECUTION

from lakebase_provider.operators.sql import LakebaseSqlOperator

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator


class _LakebaseSqlDecoratedOperator(DecoratedOperator, LakebaseSqlOperator):
    """Runs the SQL that a function returns.

    Args:
        python_callable: Returns a statement, or a list of them, which may be templates.
        kwargs: Arguments of the function (`op_args`, `op_kwargs`) and of the operator.
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *LakebaseSqlOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **LakebaseSqlOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.lakebase_sql"
    # The SQL is known only when the task runs; Airflow's interface shows it from then on.
    overwrite_rtif_after_execution = True

    def __init__(self, *, python_callable: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(python_callable=python_callable, sql=SET_DURING_EXECUTION, **kwargs)

    def execute(self, context: Context) -> Any:
        """Call the function and run what it returns.

        Raises:
            TypeError: It returned neither a statement nor a list of statements.
        """
        context_merge(context, self.op_kwargs)
        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        returned = self.python_callable(*self.op_args, **kwargs)
        statements = [returned] if isinstance(returned, str) else returned
        if (
            not isinstance(statements, list)
            or not statements
            or not all(isinstance(one, str) and one.strip() for one in statements)
        ):
            raise TypeError(
                f"@task.lakebase_sql: {self.python_callable.__name__} returned a {type(returned).__name__}; "
                "it must return a non-empty str, or a non-empty list of them."
            )
        self.sql = returned
        self.render_template_fields(context)
        return super().execute(context)


def lakebase_sql_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a function that returns SQL into a task of :class:`LakebaseSqlOperator`.

    Args:
        python_callable: The function.
        kwargs: Arguments of the operator.

    Example:
        .. code-block:: python

            @task.lakebase_sql(conn_id="lakebase_default")
            def orders_of(day: str) -> str:
                return f"select count(*) from orders_{day}"
    """
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=_LakebaseSqlDecoratedOperator,
        **kwargs,
    )
