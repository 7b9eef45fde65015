"""A run of the DAG `native_async` in a process of its own, forked from one that has imported Airflow.

Airflow's event loop for tasks that are async functions stays in the process, and in the tests' own it would
meet what earlier tests have left of theirs.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from multiprocessing.connection import Connection


def run(file: str, env: dict[str, str], parent: Connection) -> None:
    """Run a file's DAG, send the run's id and what was warned of, and stay until the answer."""
    os.environ.clear()
    os.environ.update(env)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spec = importlib.util.spec_from_file_location("dag_native_async", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        run_id = module.dag.test().run_id
    parent.send((run_id, [str(warning.message) for warning in caught]))
    parent.recv()
