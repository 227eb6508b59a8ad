"""What the table of docs/types.md says of each hint is so."""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from jsonrpc_amqp.jsonrpc.conversion import DoesNotFit, converter

from ...references import ROOT


class Color(enum.Enum):
    RED = "red"


@dataclass
class Item:
    sku: str
    price: Decimal


class Options(TypedDict, total=False):
    level: int


class Pair(NamedTuple):
    name: str
    number: int


class Order(pydantic.BaseModel):
    sku: str


NAMES: dict[str, Any] = {
    each.__name__: each for each in (Color, Item, Options, Pair, Order, date, datetime, timedelta, Decimal, UUID)
}
NAMES |= {"Annotated": Annotated, "Literal": Literal, "msgspec": msgspec, "UTC": UTC}
PAGE = (ROOT / "docs/types.md").read_text("utf-8")
ROWS = [
    [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\) \| ", line.strip("| "))]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]


def code(cell: str) -> str:
    """Return what stands between the first two back quotes."""
    found = re.match(r"`(.*?)`", cell)
    assert found is not None
    return found[1]


def test_the_table_is_there() -> None:
    assert len(ROWS) > 20
    assert {len(row) for row in ROWS} == {5}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: code(row[0]))
def test_a_row(row: list[str]) -> None:
    hint, fits, becomes, fits_not, said = row
    convert = converter(eval(code(hint), NAMES))
    assert convert is not None
    result, expected = convert(json.loads(code(fits))), eval(code(becomes), NAMES)
    assert (result, type(result)) == (expected, type(expected))
    with pytest.raises(DoesNotFit) as caught:
        convert(json.loads(code(fits_not)))
    ((path, message),) = caught.value.misfits
    assert said == (f"`{path}`: {message}" if path else message)
