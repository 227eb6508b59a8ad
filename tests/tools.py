"""Waiting, and tools that some tests run and that not every machine has."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import NoReturn

import pytest


def need(tool: str) -> str:
    """
    Give the path of a tool.

    Without it the test is skipped, or fails where ``INTEROP_REQUIRED`` is set: a machine that promises to run
    everything must not pass by leaving something out.
    """
    path = shutil.which(tool)
    if path is None:
        missing(f"{tool} is not installed")
    return path


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where ``INTEROP_REQUIRED`` is set: for what has no command to look for."""
    if os.environ.get("INTEROP_REQUIRED", "0") not in ("", "0"):
        pytest.fail(f"INTEROP_REQUIRED is set, and {reason}", pytrace=False)
    pytest.skip(reason)


def wait_for(condition: Callable[[], object], seconds: float = 10.0, *, told: Callable[[], str] = str) -> None:
    """
    Wait until something is so; fail if it is not in time.

    Args:
        told: What the failure says besides.
    """
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not in {seconds:g} s. {told()}"
        time.sleep(0.01)
