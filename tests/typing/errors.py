"""Errors of an application, as users define, raise, receive and map them."""

from __future__ import annotations

from dataclasses import field
from types import ModuleType
from typing import Any, NoReturn, assert_type

from jsonrpc_amqp import (
    ApplicationError,
    AsyncCalls,
    AsyncClient,
    AsyncServer,
    Calls,
    Client,
    Dispatcher,
    InvalidParams,
    MethodNotFound,
    RemoteError,
    Server,
)


class StockError(ApplicationError):
    sku: str


class OutOfStock(StockError, code=1001):
    left: int = 0
    others: list[str] = field(default_factory=list[str])


class Closed(ApplicationError, code=1002, message="The shop is closed"):
    pass


def made() -> None:
    error = OutOfStock("a7", left=3)
    assert_type(error, OutOfStock)
    assert_type(error.sku, str)
    assert_type(error.left, int)
    assert_type(error.others, list[str])
    assert_type(error.code, int)
    assert_type(error.message, str)
    assert_type(error.is_reply, bool)
    assert_type(OutOfStock.code, int)
    assert_type(OutOfStock.message, str)
    Closed()
    OutOfStock("a7", 3, ["b8"])
    OutOfStock()  # type: ignore[call-arg]  # sku has no default
    OutOfStock("a7", left="3")  # type: ignore[arg-type]  # a number
    OutOfStock("a7", right=3)  # type: ignore[call-arg]  # no such field


def raised(sku: str) -> NoReturn:
    if not sku:
        raise InvalidParams("sku is empty", {"sku": sku})
    if sku == "old":
        raise MethodNotFound("not for old ones")
    if sku == "odd":
        raise RemoteError(4711, "odd", [sku])
    raise OutOfStock(sku)


def caught(client: Client) -> int:
    try:
        client.call("order", ["a7"])
    except OutOfStock as error:
        return error.left
    except StockError as error:
        return len(error.sku)
    except RemoteError as error:
        assert_type(error.data, Any)
        return error.code
    return 0


def clients(module: ModuleType) -> None:
    Client("memory://typing", errors=OutOfStock)
    Client("memory://typing", errors=[OutOfStock, Closed])
    Client("memory://typing", errors={Closed})
    AsyncClient("memory://typing", errors=module)
    Client("memory://typing", errors=[RemoteError])  # type: ignore[list-item]  # it has no code of its own
    Client("memory://typing", errors="OutOfStock")  # type: ignore[arg-type]  # a class


def options(client: Client, other: AsyncClient) -> None:
    assert_type(client.with_options(errors=OutOfStock, timeout=1), Calls)
    assert_type(other.with_options(errors=[Closed]), AsyncCalls)


def handlers(server: Server, other: AsyncServer, dispatcher: Dispatcher) -> list[object]:
    @server.error_handler(KeyError)
    def unknown(error: KeyError) -> Exception:
        return OutOfStock(str(error.args[0]))

    @other.error_handler(LookupError)
    def nothing(error: LookupError) -> ApplicationError | RemoteError:
        return Closed() if error.args else RemoteError(1, "no")

    @dispatcher.error_handler(OSError)
    @server.error_handler(OSError)
    def passed_on(error: OSError) -> NoReturn:
        raise Closed from error

    assert_type(unknown(KeyError("a7")), Exception)

    @server.error_handler(ValueError)  # type: ignore[arg-type]  # it is for another class
    def wrong(error: KeyError) -> Exception:
        return error

    @server.error_handler(TypeError)  # type: ignore[arg-type]  # it returns none
    def nothing_at_all(_error: TypeError) -> None:
        return None

    return [nothing, passed_on, wrong, nothing_at_all]
