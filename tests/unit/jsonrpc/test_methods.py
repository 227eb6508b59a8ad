"""The registry: what can be registered, under which names, and with which policy."""

from __future__ import annotations

import collections
import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.jsonrpc.methods import Methods, Policy

from .tools import Counter, ask, asynchronous, boom, check_error, do_nothing, request, subtract


def test_the_decorator_in_all_its_forms() -> None:
    dispatcher = Dispatcher()

    def now() -> int:
        return 1

    assert dispatcher.method(now) is now
    assert dispatcher.method("time.now")(now) is now
    assert dispatcher.method(name="time.also")(now) is now
    assert dispatcher.method()(now) is now
    dispatcher.register(now, "last")
    for name in ("now", "time.now", "time.also", "last"):
        assert ask(dispatcher, request(name))["result"] == 1


async def asynchronous_generator() -> Any:
    yield 1


class AsynchronousObject:
    async def __call__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("name", "function", "error", "match"),
    [
        ("rpc.x", do_nothing, ValueError, "reserves"),
        ("rpc.", do_nothing, ValueError, "reserves"),
        ("", do_nothing, ValueError, "empty"),
        (5, do_nothing, TypeError, "string"),
        ("a", 5, TypeError, "not callable"),
        ("a", "do_nothing", TypeError, "not callable"),
        ("a", asynchronous_generator, TypeError, "asynchronous generator"),
        ("a", functools.partial(asynchronous_generator), TypeError, "asynchronous generator"),
    ],
)
def test_what_cannot_be_registered(name: Any, function: Any, error: type[Exception], match: str) -> None:
    dispatcher = Dispatcher()
    with pytest.raises(error, match=match):
        dispatcher.register(function, name)
    with pytest.raises(error, match=match):
        Dispatcher({name: function})
    if isinstance(name, str):
        assert ask(dispatcher, request(name))["error"]["code"] == -32601


@pytest.mark.parametrize("name", ["rpc", "rpcx", "RPC.x", "a.rpc.b", "system.describe", "\u00e9", " "])
def test_names_that_are_not_reserved(name: str) -> None:
    assert "result" in ask(Dispatcher({name: do_nothing}), request(name))


@pytest.mark.parametrize("function", [lambda: 1, functools.partial(do_nothing), Counter()])
def test_a_function_without_a_name_needs_one(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="no name of its own"):
        Dispatcher().register(function)


def test_a_name_is_registered_once() -> None:
    counter = Counter()
    given = {"given": do_nothing}
    dispatcher = Dispatcher(given)
    dispatcher.register(counter.bound, "bound")
    dispatcher.register(counter.bound, "bound")
    dispatcher.register(do_nothing, "given")
    with pytest.raises(ValueError, match="'bound' is registered already"):
        dispatcher.register(do_nothing, "bound")
    with pytest.raises(ValueError, match="'given' is registered already"):
        dispatcher.register(boom, "given")
    assert given == {"given": do_nothing}


def test_given_methods_stay_live() -> None:
    methods: dict[Any, Any] = {"a": lambda: 1}
    dispatcher = Dispatcher(methods)
    assert ask(dispatcher, request("a"))["result"] == 1
    methods["b"] = lambda: 2
    assert ask(dispatcher, request("b"))["result"] == 2
    methods["a"] = lambda: 3
    assert ask(dispatcher, request("a"))["result"] == 3
    del methods["a"]
    check_error(ask(dispatcher, request("a")), -32601, data="a")


@pytest.mark.parametrize("function", [asynchronous, functools.partial(asynchronous), AsynchronousObject()])
def test_which_methods_are_async(function: Any) -> None:
    methods = registry(given=do_nothing)
    had_async = methods.has_async
    methods.add(function, "later", {})
    assert (had_async, methods.has_async) == (False, True)
    assert methods.is_async("later")
    assert not methods.is_async("given")
    assert not methods.is_async("absent")


def test_given_methods_that_cannot_be_called_are_known_when_called(caplog: pytest.LogCaptureFixture) -> None:
    methods: dict[Any, Any] = {}
    dispatcher = Dispatcher(methods)
    methods.update({"rpc.x": do_nothing, "later": asynchronous, "five": 5})
    check_error(ask(dispatcher, request("rpc.x")), -32601, data="rpc.x")
    assert not caplog.records
    check_error(ask(dispatcher, request("later")), -32603)
    check_error(ask(dispatcher, request("five")), -32603)
    assert "is async def, and there is no event loop" in caplog.text
    assert "not callable" in caplog.text


def test_a_given_mapping_that_raises_costs_that_call_only(caplog: pytest.LogCaptureFixture) -> None:
    class Fragile(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            raise RuntimeError("no lookups today")

    dispatcher = Dispatcher(Fragile())
    check_error(ask(dispatcher, request("absent")), -32603)
    assert "no lookups today" in caplog.text


def test_names_from_the_wire_make_no_methods() -> None:
    methods: dict[str, Callable[..., Any]] = collections.defaultdict(lambda: do_nothing)
    dispatcher = Dispatcher(methods)
    for name in ("absent", "__class__", "method", "register", "", "do_nothing"):
        check_error(ask(dispatcher, request(name)), -32601, data=name)
    assert not methods


def test_without_methods_none_are_shared() -> None:
    first, second = Dispatcher(), Dispatcher()
    first.register(do_nothing)
    check_error(ask(second, request("do_nothing")), -32601, data="do_nothing")


def test_the_librarys_own_extensions_can_be_called_and_users_cannot_add_any() -> None:
    dispatcher = Dispatcher(_extensions={"rpc.discover": lambda: {"openrpc": "1.3.2"}})
    assert ask(dispatcher, request("rpc.discover"))["result"] == {"openrpc": "1.3.2"}
    check_error(ask(dispatcher, request("rpc.other")), -32601, data="rpc.other")
    with pytest.raises(ValueError, match="reserves"):
        dispatcher.register(do_nothing, "rpc.other")


def registry(**given: Any) -> Methods:
    return Methods(
        given, extensions={}, policy=Policy("run", "late"), max_name=256, expose_errors=False, check_results=False
    )


def test_a_method_has_the_policy_it_was_registered_with() -> None:
    methods = registry(given=do_nothing)
    had_early = methods.has_early
    methods.add(do_nothing, "early", {"ack": "early"})
    methods.add(do_nothing, "refused", {"redelivery": "refuse", "ack": None})
    assert (had_early, methods.has_early) == (False, True)
    methods.add(do_nothing, "cancelled", {"cancel_on_deadline": True})
    with pytest.raises(TypeError, match="no option retry"):
        methods.add(do_nothing, "other", {"retry": "safe"})  # type: ignore[typeddict-unknown-key]  # on purpose
    assert methods.policy_of("early") == Policy("run", "early")
    assert methods.policy_of("refused") == Policy("refuse", "late")
    assert methods.policy_of("cancelled") == Policy("run", "late", True)
    assert methods.policy_of("given") == methods.policy_of("absent") == Policy("run", "late")
    assert methods.names == ["cancelled", "early", "given", "refused"]


@pytest.mark.parametrize(("redelivery", "ack"), [("rerun", "late"), ("run", "never"), (True, "late")])
def test_what_is_no_policy(redelivery: Any, ack: Any) -> None:
    with pytest.raises(ValueError, match="is one of"):
        Policy(redelivery, ack).checked()
    with pytest.raises(ValueError, match="is one of"):
        registry().add(do_nothing, None, {"redelivery": redelivery, "ack": ack})
    with pytest.raises(ValueError, match="is one of"):
        Dispatcher(redelivery=redelivery, ack=ack)


def test_signatures() -> None:
    given: dict[Any, Any] = {"subtract": subtract}
    methods = Methods(
        given, extensions={}, policy=Policy("run", "late"), max_name=256, expose_errors=False, check_results=False
    )
    given["later"] = asynchronous
    assert methods.signature_of("subtract") == inspect.signature(subtract, eval_str=True)
    assert methods.signature_of("later") == inspect.signature(asynchronous, eval_str=True)
    assert methods.signature_of("absent") is None
