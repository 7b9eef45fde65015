"""Processes that share a token: ``python -m tests.core.sharing PROCESSES THREADS NOW``.

It imports once, then forks them; each answers a line of its standard input with the fingerprints that its
threads got. ``advance`` turns the clock beyond the moment of renewal.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from typing import TextIO

from lakebase_provider.core import LakebaseClient, LakebaseConfig
from lakebase_provider.core.connect.pools import pool as _pool  # noqa: F401 # imported before the fork
from lakebase_provider.core.tokens import shared_store as _shared_store  # noqa: F401 # likewise
from tests.core.fake_clock import FakeClock


class Clock(FakeClock):
    def sleep(self, seconds: float) -> None:
        threading.Event().wait(seconds)


def work(orders: Iterable[str], answers: TextIO, threads_of_each: int, now: float) -> None:
    clock = Clock(now)
    tokens = LakebaseClient(LakebaseConfig.from_env(), clock=clock).tokens
    barrier = threading.Barrier(threads_of_each)
    threading.stack_size(131072)

    def ask(got: set[str]) -> None:
        barrier.wait()
        got.add(tokens.get(timeout=60).fingerprint)

    for order in orders:
        if order == "advance\n":
            clock.advance(0.85 * 3600)
        got: set[str] = set()
        threads = [threading.Thread(target=ask, args=(got,)) for _ in range(threads_of_each)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for thread in threading.enumerate():
            if thread.name == "lakebase-mint":
                thread.join()
        got.add(tokens.get().fingerprint)
        answers.write(" ".join(sorted(got)) + "\n")
        answers.flush()


def main(processes: int, threads_of_each: int, now: float) -> None:
    children: list[tuple[TextIO, TextIO]] = []
    for _ in range(processes):
        orders_read, orders_write = os.pipe()
        answers_read, answers_write = os.pipe()
        if os.fork() == 0:
            os.close(orders_write)
            for orders, _answers in children:
                orders.close()
            work(os.fdopen(orders_read), os.fdopen(answers_write, "w"), threads_of_each, now)
            os._exit(0)
        os.close(orders_read)
        os.close(answers_write)
        children.append((os.fdopen(orders_write, "w"), os.fdopen(answers_read)))
    for order in sys.stdin:
        for orders, _answers in children:
            orders.write(order)
            orders.flush()
        print(" ".join(answers.readline().strip() for _orders, answers in children), flush=True)
    for orders, _answers in children:
        orders.close()
    for _ in children:
        os.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
