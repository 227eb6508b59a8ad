"""Celery with the result backend rpc:// and one process (the solo pool), like the others."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import worker_ready

from benchmarks.lines import PREFETCH, URL, in_order, one_at_a_time, role, run_commands, say

what, queue = role()
app = Celery("bench", broker=URL, backend="rpc://")
app.conf.update(
    task_default_queue=queue,
    task_default_delivery_mode=1,
    task_serializer="json",
    result_persistent=False,
    result_serializer="json",
    worker_prefetch_multiplier=PREFETCH,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="add")
def add(a, b):
    return a + b


def run(calls, in_flight):
    if in_flight == 1:
        return one_at_a_time(lambda a, b: add.apply_async((a, b)).get(timeout=30), calls)
    return in_order(lambda i: add.apply_async((i, 1)), lambda result: result.get(timeout=30), calls, in_flight)


if what == "server":
    worker_ready.connect(lambda **_options: say("READY"), weak=False)
    quiet = ["-l", "CRITICAL", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "-P", "solo", "-c", "1", *quiet, "-Q", queue, "-n", f"w{os.getpid()}@x"])
else:
    run_commands({"run": run})
