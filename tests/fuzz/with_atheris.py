"""One target with atheris: ``python -m tests.fuzz.with_atheris TARGET SECONDS CORPUS PREFIX``."""

from __future__ import annotations

import logging
import os
import sys

import atheris

with atheris.instrument_imports(include=["jsonrpc_amqp"]):
    from .targets import TARGETS

from .resident import Resident


def main(name: str, seconds: str, corpus: str, prefix: str) -> None:
    logging.disable()  # logging a line for each failure would take most of the time
    options = [
        corpus,
        f"-max_total_time={max(1, round(float(seconds)))}",
        f"-artifact_prefix={prefix}",
        "-max_len=4096",
        "-timeout=10",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    resident = Resident()

    def once(data: bytes) -> None:
        TARGETS[name](data)
        resident.look(os.getpid())

    atheris.Setup([sys.argv[0], *options], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
