"""The shop of examples/shop, in four processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from ..broker import free_ports
from ..command import Program, running
from ..tools import wait_for

SERVICES = ("inventory", "pricing", "orders")


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest, port: int) -> Iterator[dict[str, Program]]:
    url = request.getfixturevalue("broker").url
    with ExitStack() as stack:
        programs = {
            name: stack.enter_context(running("-m", f"examples.shop.{name}", program=[sys.executable], url=url))
            for name in SERVICES
        }
        words = ("-m", "uvicorn", "examples.shop.front:app", "--port", str(port))
        programs["front"] = stack.enter_context(running(*words, program=[sys.executable], url=url))
        programs["front"].wait_until_said("Application startup complete")
        yield programs


def place(port: int, sku: str, count: object, *, customer: str = "ada", request_id: str = "r0") -> httpx.Response:
    order = {"customer": customer, "lines": [{"sku": sku, "count": count}]}
    # The services may still be starting.
    return httpx.post(f"http://127.0.0.1:{port}/orders", json=order, headers={"X-Request-Id": request_id}, timeout=60)


def first(port: int) -> None:
    wait_for(lambda: place(port, "absent", 1).status_code == 409, 60)


def test_an_order_passes_through_all_of_them(shop: dict[str, Program], port: int) -> None:
    first(port)
    response = place(port, "lamp", 2, request_id="r1")
    assert (response.status_code, response.json()["total"]) == (200, "44.100")
    assert response.headers["x-request-id"] == "r1"
    for name, method in (("orders", "place"), ("pricing", "total"), ("inventory", "take")):
        shop[name].wait_until_said(f"shop.{name} {method} r1 ")
    assert place(port, "lamp", 2, customer="bob").json()["total"] == "49.00"


def test_errors_come_back_by_type_over_two_hops(shop: dict[str, Program], port: int) -> None:
    first(port)
    response = place(port, "rug", 2, request_id="r2")
    assert response.status_code == 409
    assert response.json() == {"error": "There are not enough of it", "data": {"sku": "rug", "left": 1}}
    response = place(port, "chair", 1)
    assert response.json() == {"error": "There is no such article", "data": {"sku": "chair"}}
    shop["inventory"].wait_until_said("shop.inventory take r2 ")


def test_what_does_not_fit_is_refused_at_the_front(shop: dict[str, Program], port: int) -> None:
    for count in (0, "two", 101):
        assert place(port, "lamp", count).status_code == 422
