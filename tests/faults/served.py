"""The methods of ``worker`` for the command: ``serve tests.faults.served:methods``, with the folder in ``RUNS``."""

from __future__ import annotations

import os
from pathlib import Path

from .worker import Worker

methods = Worker(Path(os.environ["RUNS"])).methods
