"""Sixty tasks and seven connections, as a mapped task of Airflow has them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from lakebase_provider.core import LakebaseClient
from lakebase_provider.local import LocalLakebase

TASKS = 60
#: Of which the superuser keeps three.
MAX_CONNECTIONS = 10
#: Seconds that each task works.
WORK = 2.0
#: Seconds for which a task that waits may log in once.
INTERVAL = 5.0
MOST_LINES = 8


class LinesByThread(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: Counter[int | None] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines[record.thread] += len(record.getMessage().splitlines())


@pytest.mark.slow
def test_sixty_tasks_share_seven_connections() -> None:
    start, handler = threading.Barrier(TASKS), LinesByThread()
    logger = logging.getLogger("lakebase_provider")
    waits: list[float] = []

    def task(_number: int) -> None:
        # As in a process of its own: neither pool nor token is another's.
        with LakebaseClient(lake.config(connect_budget=300)) as client:
            client.tokens.get()
            start.wait()
            began = time.monotonic()
            with client.connection() as connection:
                waits.append(time.monotonic() - began)
                connection.execute("SELECT pg_sleep(%s)", (WORK,))

    with LocalLakebase(max_connections=MAX_CONNECTIONS) as lake, ThreadPoolExecutor(TASKS) as tasks:
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            for done in [tasks.submit(task, number) for number in range(TASKS)]:
                done.result()
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
        counted = lake.admin.counters()

    attempts = counted.logins + counted.refused_logins
    print(  # what `pytest -s` is run for
        f"{attempts} logins of {TASKS} tasks, one each {sum(waits) / attempts:.1f} s of waiting; "
        f"waits up to {max(waits):.0f} s, {max(handler.lines.values())} lines of a task at most"
    )
    assert len(waits) == TASKS
    assert counted.refused_logins > TASKS, "the server was never full"
    # The first is nobody's waiting.
    assert attempts - TASKS <= sum(waits) / INTERVAL
    # The thread's line about its token is one of them.
    assert max(handler.lines.values()) <= MOST_LINES
