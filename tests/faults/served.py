"""
The methods of ``worker`` for the command: ``serve tests.faults.served:methods``, with the folder in ``RUNS``.

A process of ``serve`` has one server, which has the methods of both kinds: ``ends.targets_of_one``.
"""

from __future__ import annotations

import os
from pathlib import Path

from .ends import PREFIX
from .worker import Worker

_worker = Worker(Path(os.environ["RUNS"]))
methods = _worker.methods | {PREFIX + name: coroutine for name, coroutine in _worker.coroutines.items()}
