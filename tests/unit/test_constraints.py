"""The versions that CI installs are pinned, and are such as the package asks for."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
# Those of tests/interop are pinned where they are asked for.
EXTRAS = ("test", "lint", "types", "dev")


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def test_everything_that_is_asked_for_is_pinned() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    asked = lines(config["options"]["install_requires"])
    asked += [line for extra in EXTRAS for line in lines(config["options.extras_require"][extra])]
    pinned: dict[str, list[str]] = {}
    for line in lines((ROOT / "constraints.txt").read_text()):
        requirement = Requirement(line)
        [pin] = requirement.specifier
        assert pin.operator == "==", line
        pinned.setdefault(_plain(requirement.name), []).append(pin.version)
    for requirement in map(Requirement, asked):
        if requirement.name != "jsonrpc-amqp":
            versions = pinned[_plain(requirement.name)]
            assert all(requirement.specifier.contains(version) for version in versions), (requirement, versions)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
