"""``@lakebase_branch``: a task group whose tasks work on a branch of their own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from airflow.sdk import task_group
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from lakebase_provider.operators.branches import (
    LakebaseCreateBranchOperator,
    LakebaseDeleteBranchOperator,
)

#: What the two tasks are called in their group.
CREATE, DELETE = "create_branch", "delete_branch"
#: Arguments that creation and deletion share.
_SHARED = ("conn_id", "lakebase_conn_id", "manage_conn_id", "timeout", "deferrable")


class _OfTheGroup(PlainXComArg):
    """An output in default arguments: a group in the group copies those, and would copy the DAG."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _OfTheGroup:
        return self


def _put_between(made: Any, tasks: list[Any], deleted: Any) -> None:
    """Let no task begin before the branch is made, nor the deletion before each has ended.

    Not by Airflow's context of a teardown, which leaves out mapped tasks.
    """
    inside = {task.task_id for task in tasks}
    for task in tasks:
        if not task.upstream_task_ids & (inside | {made.task_id}):
            made >> task
        if not task.downstream_task_ids & inside:
            task >> deleted


def lakebase_branch(
    python_callable: Callable[..., Any] | None = None,
    *,
    group_id: str | None = None,
    group: Mapping[str, Any] | None = None,
    **create: Any,
) -> Any:
    """Make a function into a task group that works on a branch, made before it and deleted in every outcome.

    The branch, and the connection if one is given, are in the group's ``default_args``, so that the
    operators, sensors and decorators of this package that the function makes work on it. What else it makes
    does *not* by itself: if the function has a parameter ``branch``, it gets the branch's name, to pass it on
    by keyword, as ``hook_params={"branch": branch}``, or to a ``@task`` for ``LakebaseHook(branch=branch)``.

    The group can be mapped by ``expand``; each of its instances has a branch of its own. A reset has no place
    in it: it makes another branch of that name, which the deletion leaves alone.

    Args:
        python_callable: The function.
        group_id: The group's id; the function's name by default.
        group: Other arguments of Airflow's ``task_group``.
        create: Arguments of :class:`~lakebase_provider.operators.branches.LakebaseCreateBranchOperator`, such
            as `ttl`, `source`, `manage_conn_id`, `deferrable` and `retries`. `retries` and other arguments of
            ``BaseOperator`` are those of the creation; the deletion has the defaults of the DAG.

    Example:
        .. code-block:: python

            @lakebase_branch(ttl=3600)
            def rebuild(branch: str) -> None:
                LakebaseSqlOperator(task_id="rebuild", sql="CALL rebuild()") >> check(branch=branch)
    """

    def decorate(function: Callable[..., Any]) -> Any:
        signature = inspect.signature(function)
        takes_branch = "branch" in signature.parameters

        @wraps(function)
        def body(*arguments: Any, **named: Any) -> Any:
            made = LakebaseCreateBranchOperator(task_id=CREATE, **create)
            branch = _OfTheGroup(made, "name")
            deleted = LakebaseDeleteBranchOperator(
                task_id=DELETE,
                branch=branch,  # type: ignore[arg-type] # another task's output
                uid=PlainXComArg(made, "uid"),  # type: ignore[arg-type] # another task's output
                **{name: value for name, value in create.items() if name in _SHARED},
            ).as_teardown(setups=made)
            here: Any = made.task_group
            defaults = {name: create[name] for name in ("conn_id", "lakebase_conn_id") if name in create}
            here.default_args.update(defaults, branch=branch)
            returned = function(*arguments, **named, **({"branch": branch} if takes_branch else {}))
            _put_between(made, [one for one in here if one is not made and one is not deleted], deleted)
            return returned

        # Whoever calls or maps the group does not give it.
        shown = [one for name, one in signature.parameters.items() if name != "branch"]
        body.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined] # of any function
        return task_group(**{**(group or {}), "group_id": group_id or function.__name__})(body)

    return decorate if python_callable is None else decorate(python_callable)
