"""Middleware around the forms of a call, on a connection that does what each test says."""

from __future__ import annotations

import contextvars
import gc
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from jsonrpc_amqp import (
    CallTimeout,
    Client,
    ClientClosed,
    ConnectionLost,
    EncodeError,
    MessageTooLarge,
    MethodNotFound,
    NotConnected,
    OutgoingRequest,
    TooManyPending,
    TransportError,
    Unroutable,
    WouldDeadlock,
    per_attempt,
)
from jsonrpc_amqp.amqp.base import Publish, Returned
from jsonrpc_amqp.client import retries
from jsonrpc_amqp.options import MIDDLEWARE_THREADS

from .fakes import SERVICE, FakeSession, FakeTransport, reply_to

Next = Callable[[OutgoingRequest], Any]
SECONDS = 10.0
CALL = b'{"jsonrpc": "2.0", "method": "add", "id": 1}'
NOTIFICATION = b'{"jsonrpc": "2.0", "method": "add"}'


class Served:
    """
    A client that is connected.

    Attributes:
        answer: Called with each message that is sent, while its caller waits; it ends the call.
        requests, seen: What ``note``, the middleware unless there is other, was given: requests; results and errors.
    """

    def __init__(self, *middleware: Any, **options: Any) -> None:
        self.transport = FakeTransport()
        self.seen: list[Any] = []
        self.requests: list[OutgoingRequest] = []
        around = middleware or [self.note]
        self.client = Client("memory://x", SERVICE, transport=self.transport, middleware=around, **options)
        self.session = FakeSession()
        self.client._requests.plan()
        self.client._requests.on_open(self.session)
        self.answer: Callable[[Publish], None] = self.confirm_or_respond
        self.answered = 0
        self.transport.runtime.on_drive = self.drive

    def drive(self) -> None:
        while self.session.binds:
            self.session.binds.pop(0)[1](None)
        while self.answered < len(self.session.published):
            self.answered += 1
            self.answer(self.session.published[self.answered - 1])

    def confirm_or_respond(self, message: Publish) -> None:
        if message.correlation_id is None:
            self.session.confirms.pop(0)(None)
        else:
            self.respond(message, 3)

    def respond(self, message: Publish, result: object) -> None:
        sent = json.loads(message.body)
        many = [{"jsonrpc": "2.0", "id": each["id"], "result": result} for each in _list(sent) if "id" in each]
        body = json.dumps(many if isinstance(sent, list) else many[0]).encode()
        self.client._requests.on_deliveries(self.session, [reply_to(message, body)])

    def refuse(self, message: Publish) -> None:
        returned = Returned(312, "NO_ROUTE", message.exchange, message.routing_key, message.correlation_id, None)
        self.client._requests.on_returned(self.session, returned)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(message.body) for message in self.session.published]

    def note(self, request: OutgoingRequest, call_next: Next) -> Any:
        self.requests.append(replace(request, headers=dict(request.headers)))
        try:
            result = call_next(request)
        except BaseException as exc:
            self.seen.append(exc)
            raise
        self.seen.append(result)
        return result

    @contextmanager
    def driven(self) -> Iterator[None]:
        """Answer what other threads send, within the block."""
        over = threading.Event()

        def drive() -> None:
            while not over.wait(0.001):
                self.drive()

        thread = threading.Thread(target=drive)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(SECONDS)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def ends(future: Future[Any]) -> Any:
    """Return what a future ends with."""
    error = future.exception(SECONDS)
    return error if error is not None else future.result()


# -- what is seen and sent ------------------------------------------------------------------------------------------


def test_a_call_is_seen_and_passed_on() -> None:
    made = Served(timeout=50)
    assert made.client.call("add", [1, 2], headers={"h": 1}) == 3
    (request,) = made.requests
    assert (request.method, request.params, request.service, request.headers) == ("add", [1, 2], SERVICE, {"h": 1})
    assert (request.is_notification, request.body, request.members, request.attempt) == (False, None, (), 0)
    assert 40 < (request.timeout or 0) <= 50
    assert made.seen == [3]
    assert made.bodies == [{"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}]
    assert made.session.published[0].headers == {"h": 1}
    assert made.client.stats()["pending"] == 0


def test_what_middleware_changes_is_sent() -> None:
    def change(request: OutgoingRequest, call_next: Next) -> Any:
        request.method, request.params = "sum", {"a": 1}
        request.headers["x-request-id"] = "7"
        return call_next(replace(request, service="T")) + 1

    made = Served(change)
    given = {"h": 1}
    assert made.client.call("add", [1, 2], headers=given) == 4
    assert made.bodies == [{"jsonrpc": "2.0", "method": "sum", "params": {"a": 1}, "id": 1}]
    (message,) = made.session.published
    assert message.headers == {"h": 1, "x-request-id": "7"}
    assert message.routing_key.startswith("T.request.")
    assert given == {"h": 1}
    assert made.client.call("add") == 4
    assert made.session.published[1].headers == {"x-request-id": "7"}, "not those of the call before"


def test_headers_of_a_view_are_not_changed() -> None:
    def add(request: OutgoingRequest, call_next: Next) -> Any:
        request.headers[f"n{len(request.headers)}"] = 1
        return call_next(request)

    made = Served(add)
    view = made.client.with_options(headers={"h": 1})
    assert view.call("add") == view.call("add") == 3
    assert [message.headers for message in made.session.published] == [{"h": 1, "n1": 1}] * 2


def test_call_next_may_be_left_out_or_called_again() -> None:
    made = Served(lambda request, call_next: "cached" if request.method == "get" else [call_next(request)] * 2)
    assert made.client.call("get") == "cached"
    assert made.bodies == []
    assert made.client.call("add") == [3, 3]

    def twice(request: OutgoingRequest, call_next: Next) -> Any:
        return call_next(request), call_next(request)

    assert made.client.with_options(middleware=[twice]).call("add") == (3, 3)
    assert [each["id"] for each in made.bodies] == [1, 2, 3]


def test_a_view_has_the_middleware_of_its_client_unless_it_is_given_other() -> None:
    made = Served()
    made.client.with_options(timeout=5).call("add")
    assert len(made.seen) == 1
    made.client.with_options(middleware=[]).call("add")
    assert len(made.seen) == 1
    made.client.with_options(middleware=[lambda request, call_next: 5]).call("add")
    assert len(made.seen) == 1
    assert made.client.proxy.add(1) == 3
    assert len(made.seen) == 2


@pytest.mark.parametrize(
    ("send", "error"),
    [
        (lambda client: client.call("add", [1j]), EncodeError),
        (lambda client: client.call("add", "text"), TypeError),
        (lambda client: client.call(None), TypeError),
        (lambda client: client.call("add", ["x" * 2000]), MessageTooLarge),
        (lambda client: client.send_raw("text"), TypeError),
    ],
)
def test_middleware_sees_what_cannot_be_sent(send: Callable[[Client], object], error: type[Exception]) -> None:
    made = Served(max_size=1000)
    with pytest.raises(error) as caught:
        send(made.client)
    assert made.seen == [caught.value]
    assert made.bodies == []


@pytest.mark.parametrize(
    ("options", "error"),
    [({"timout": 1}, TypeError), ({"timeout": -1}, ValueError), ({"headers": {"h": 1j}}, EncodeError)],
)
@pytest.mark.parametrize("form", ["call", "notify", "submit", "submit_notify"])
def test_wrong_options_are_refused_at_once(form: str, options: dict[str, Any], error: type[Exception]) -> None:
    made = Served()
    with pytest.raises(error):
        getattr(made.client, form)("add", **options)
    assert made.seen == made.bodies == []


def test_persistent_calls_that_cannot_be_confirmed_are_refused_at_once() -> None:
    made = Served(reply="direct")
    for form in (made.client.call, made.client.submit):
        with pytest.raises(ValueError, match=r"persistent calls need Client\(confirm=True\)"):
            form("add", persistent=True)
    assert made.seen == made.bodies == []


def test_headers_that_middleware_adds_are_checked() -> None:
    def wrong(request: OutgoingRequest, call_next: Next) -> Any:
        request.headers["h"] = 1j
        return call_next(request)

    made = Served(wrong)
    with pytest.raises(EncodeError, match="header 'h' cannot be sent"):
        made.client.call("add")
    assert made.bodies == []


def test_an_error_may_be_replaced_and_passes_through() -> None:
    made = Served()
    made.answer = made.refuse
    with pytest.raises(Unroutable) as caught:
        made.client.call("add")
    assert made.seen == [caught.value]

    def translate(request: OutgoingRequest, call_next: Next) -> Any:
        try:
            return call_next(request)
        except TransportError as exc:
            raise LookupError("nothing there") from exc

    with pytest.raises(LookupError, match="nothing there"):
        made.client.with_options(middleware=[translate]).call("add")
    assert made.client.with_options(middleware=[lambda request, call_next: 9]).call("add") == 9


def test_the_leader_may_not_wait_and_middleware_learns_it() -> None:
    made = Served()
    made.transport.is_leader = True
    with pytest.raises(WouldDeadlock):
        made.client.call("add")
    assert isinstance(made.seen[0], WouldDeadlock)


def test_a_deadline_that_passes_in_middleware() -> None:
    def slow(request: OutgoingRequest, call_next: Next) -> Any:
        while request.timeout:
            time.sleep(0.001)
        return call_next(request)

    made = Served(slow, timeout=0.005)
    with pytest.raises(CallTimeout, match="'S' passed in its middleware; nothing was sent") as caught:
        made.client.call("add")
    assert not caught.value.may_have_run
    with pytest.raises(CallTimeout):
        made.client.notify("add")
    assert made.bodies == []
    assert made.client.stats()["timeouts"] == 2


def test_each_call_of_a_chain_has_the_deadline_of_the_whole() -> None:
    deadlines: list[float] = []

    def twice(request: OutgoingRequest, call_next: Next) -> Any:
        call_next(request)
        return call_next(replace(request, deadline=request.deadline + 1000))

    made = Served(twice, timeout=5)

    def drive() -> None:
        deadlines.extend(call.deadline for call in made.client._requests._pending._calls.values())
        made.drive()

    made.transport.runtime.on_drive = drive
    began = time.monotonic()
    made.client.call("add")
    assert deadlines[0] == deadlines[1]
    assert 4 < deadlines[0] - began < 6


# -- notifications, bytes, requests of jsonrpcclient ----------------------------------------------------------------


def test_a_notification_is_seen() -> None:
    made = Served()
    assert made.client.notify("log", {"a": 1}) is None  # type: ignore[func-returns-value]
    (request,) = made.requests
    assert (request.method, request.params, request.is_notification) == ("log", {"a": 1}, True)
    assert made.seen == [None]
    assert made.bodies == [{"jsonrpc": "2.0", "method": "log", "params": {"a": 1}}]
    assert made.session.published[0].persistent


def test_bytes_are_given_as_bytes() -> None:
    made = Served()
    made.answer = lambda message: made.client._requests.on_deliveries(made.session, [reply_to(message, b" [1]")])
    assert made.client.send_raw(CALL) == b" [1]"
    (request,) = made.requests
    assert (request.method, request.params, request.body, request.is_notification) == (None, None, CALL, False)
    made.answer = made.confirm_or_respond
    assert made.client.send_raw(NOTIFICATION) is None
    assert (made.requests[1].body, made.requests[1].is_notification) == (NOTIFICATION, True)
    assert made.seen == [b" [1]", None]


def test_bytes_may_be_replaced_and_have_no_method() -> None:
    def other(request: OutgoingRequest, call_next: Next) -> Any:
        return call_next(replace(request, body=CALL.replace(b"add", b"sum")))

    def named(request: OutgoingRequest, call_next: Next) -> Any:
        return call_next(replace(request, method="sum"))

    made = Served(other)
    assert made.client.send_raw(CALL)
    assert made.bodies[0]["method"] == "sum"
    with pytest.raises(TypeError, match=r"change request\.body"):
        made.client.with_options(middleware=[named]).send_raw(CALL)
    with pytest.raises(TypeError, match=r"request\.body is for send_raw"):
        made.client.with_options(middleware=[other]).call("add")
    assert len(made.bodies) == 1


def test_a_request_of_jsonrpcclient_is_seen_as_a_call() -> None:
    made = Served()
    response: Any = made.client.send({"jsonrpc": "2.0", "method": "add", "params": [1], "id": "x"})
    assert (response.result, response.id) == (3, "x")
    assert (made.requests[0].method, made.requests[0].params, made.seen) == ("add", [1], [3])
    assert made.bodies == [{"jsonrpc": "2.0", "method": "add", "params": [1], "id": "x"}]
    made.answer = lambda message: made.client._requests.on_deliveries(
        made.session,
        [reply_to(message, b'{"jsonrpc": "2.0", "error": {"code": -32601, "message": "none", "data": 5}, "id": "x"}')],
    )
    response = made.client.send({"jsonrpc": "2.0", "method": "add", "id": "x"})
    assert (response.code, response.message, response.data, response.id) == (-32601, "none", 5, "x")
    assert isinstance(made.seen[1], MethodNotFound)
    made.answer = made.confirm_or_respond
    assert made.client.send({"jsonrpc": "2.0", "method": "add"}) is None
    assert made.requests[2].is_notification


def test_a_request_of_jsonrpcclient_may_be_changed() -> None:
    def change(request: OutgoingRequest, call_next: Next) -> Any:
        return call_next(replace(request, method="sum", params=None if request.params else (4,)))

    made = Served(change)
    made.client.send({"jsonrpc": "2.0", "method": "add", "params": [1], "id": "x"})
    made.client.send({"jsonrpc": "2.0", "method": "add", "id": 1.5})
    assert made.bodies == [
        {"jsonrpc": "2.0", "method": "sum", "id": "x"},
        {"jsonrpc": "2.0", "method": "sum", "params": [4], "id": 1.5},
    ]


def test_what_is_no_valid_request_is_sent_as_bytes() -> None:
    made = Served()
    made.answer = lambda message: made.client._requests.on_deliveries(
        made.session,
        [reply_to(message, b'{"jsonrpc": "2.0", "error": {"code": -32600, "message": "no"}, "id": null}')],
    )
    response: Any = made.client.send({"jsonrpc": "2.0", "id": 3})
    assert (response.code, response.id) == (-32600, 3)
    assert (made.requests[0].method, made.requests[0].body) == (None, b'{"jsonrpc":"2.0","id":3}')


def test_a_list_of_requests_is_seen_as_a_batch() -> None:
    made = Served()
    given: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "method": "a", "params": [1], "id": 5},
        {"jsonrpc": "2.0", "method": "b"},
    ]
    responses: Any = made.client.send(given)
    assert [(each.result, each.id) for each in responses] == [(3, 5)]
    (request,) = made.requests
    assert (request.method, request.members, request.is_notification) == (None, (("a", [1]), ("b", None)), False)
    assert made.seen == [[3]]
    assert made.client.send(given[1:]) is None
    assert made.requests[1].is_notification
    assert made.seen[1] is None


# -- batches --------------------------------------------------------------------------------------------------------


def test_a_batch_is_seen_once() -> None:
    made = Served()
    with made.client.batch(headers={"h": 1}) as batch:
        first, second = batch.call("a", [1]), batch.call("b")
        batch.notify("c", {"x": 1})
    assert (first.result(0), second.result(0)) == (3, 3)
    (request,) = made.requests
    assert (request.method, request.params, request.headers) == (None, None, {"h": 1})
    assert request.members == (("a", [1]), ("b", None), ("c", {"x": 1}))
    assert made.seen == [[3, 3]]
    with made.client.batch() as batch:
        batch.notify("c")
    assert made.requests[1].is_notification
    assert made.seen[1] is None


def test_the_calls_of_a_batch_end_as_middleware_says() -> None:
    failed = LookupError("no")
    made = Served(lambda request, call_next: ["cached", failed])
    with made.client.batch() as batch:
        first, second = batch.call("a"), batch.call("b")
    assert (first.result(0), second.exception(0)) == ("cached", failed)
    assert made.bodies == []


@pytest.mark.parametrize("result", [None, 3, [], [1, 2, 3], "ab"])
def test_what_middleware_cannot_return_for_a_batch(result: object) -> None:
    made = Served(lambda request, call_next: result)
    futures = []
    text = "call_next returns a list of what each of its 2 calls"
    with pytest.raises(TypeError, match=text) as caught, made.client.batch() as batch:
        futures += [batch.call("a"), batch.call("b")]
    assert [future.exception(0) for future in futures] == [caught.value] * 2


def test_an_error_of_middleware_ends_the_batch() -> None:
    def fail(request: OutgoingRequest, call_next: Next) -> Any:
        raise LookupError("no")

    made = Served(fail)
    with pytest.raises(LookupError) as caught, made.client.batch() as batch:
        future = batch.call("a")
    assert future.exception(0) is caught.value


def test_a_batch_has_no_method() -> None:
    made = Served(lambda request, call_next: call_next(replace(request, method="x")))
    with pytest.raises(TypeError, match="a batch is sent as it is"), made.client.batch() as batch:
        batch.call("a")


def test_a_batch_whose_calls_are_all_cancelled_is_dropped() -> None:
    made = Served()
    futures: list[Future[Any]] = []
    made.transport.runtime.on_drive = lambda: [future.cancel() for future in futures]
    with made.client.batch() as batch:
        futures += [batch.call("a"), batch.call("b")]
    assert all(future.cancelled() for future in futures)
    assert [type(each) for each in made.seen[0]] == [CancelledError, CancelledError]
    assert (made.client.stats()["cancelled"], made.client.stats()["pending"]) == (1, 0)


# -- attempts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the delay between attempts short."""
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(retries, "LONGEST_DELAY", 0.001)


def failing(made: Served, times: int) -> None:
    """Have the first messages come back, and respond to the others."""

    def answer(message: Publish) -> None:
        if len(made.session.published) <= times:
            made.refuse(message)
        else:
            made.respond(message, 3)

    made.answer = answer


@pytest.mark.usefixtures("quick")
def test_each_attempt_is_seen_with_its_error() -> None:
    made = Served()
    failing(made, 2)
    outer, seen = made.note, []

    @per_attempt
    def attempt(request: OutgoingRequest, call_next: Next) -> Any:
        request.headers["x-attempt"] = request.attempt
        request.headers[f"only-{request.attempt}"] = 1
        try:
            return call_next(request)
        except TransportError as exc:
            seen.append(type(exc))
            raise

    # Whatever the order in the list, what runs around attempts is inside.
    view = made.client.with_options(middleware=[attempt, outer])
    assert view.call("add", [1], retry="safe") == 3
    assert seen == [Unroutable, Unroutable]
    assert made.seen == [3]
    assert [message.headers for message in made.session.published] == [
        {"x-attempt": number, f"only-{number}": 1} for number in (1, 2, 3)
    ]
    assert {**made.client.stats(), "pending": 0} == {**made.client.stats(), "retries": 2, "timeouts": 0}


@pytest.mark.usefixtures("quick")
def test_without_it_the_call_is_seen_with_all_its_attempts() -> None:
    made = Served()
    made.answer = made.refuse
    with pytest.raises(Unroutable):
        made.client.call("add")
    assert made.client.stats()["retries"] == 0
    assert len(made.seen) == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("retry", [None, "safe"])
def test_the_last_error_tells_of_the_attempts(retry: Any) -> None:
    made = Served(timeout=0.5)
    made.answer = made.refuse
    view = made.client.with_options(middleware=[per_attempt(made.note)], retry=retry)
    with pytest.raises(Unroutable) as caught:
        view.call("add")
    attempts = len(made.seen)
    assert attempts - made.client.stats()["retries"] in (0, 1)  # 0: the last one would have come too late
    assert (attempts > 1) == (retry is not None)
    assert ("(attempt " in str(caught.value)) == (retry is not None)
    assert (caught.value is made.seen[-1]) == (retry is None)
    assert [request.attempt for request in made.requests] == list(range(1, attempts + 1))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("error", "retry", "attempts"),
    [
        (Unroutable("no"), "safe", 2),
        (ConnectionLost("no"), "safe", 1),
        (ConnectionLost("no"), "idempotent", 2),
        (MessageTooLarge("no"), "idempotent", 1),
        (TooManyPending("no"), "idempotent", 1),
        (ClientClosed("no"), "idempotent", 1),
        (LookupError("no"), "idempotent", 1),
    ],
)
def test_what_middleware_raises_decides_about_the_next_attempt(error: Exception, retry: Any, attempts: int) -> None:
    numbers: list[int] = []

    @per_attempt
    def fail_first(request: OutgoingRequest, call_next: Next) -> Any:
        numbers.append(request.attempt)
        if request.attempt == 1:
            raise error
        return call_next(request)

    made = Served(fail_first)
    with suppress(type(error)):
        made.client.call("add", retry=retry)
    assert len(numbers) == attempts
    assert made.client.stats()["retries"] == attempts - 1


@pytest.mark.usefixtures("quick")
def test_an_error_that_may_have_run_is_remembered() -> None:
    @per_attempt
    def fail(request: OutgoingRequest, call_next: Next) -> Any:
        raise ConnectionLost("lost") if request.attempt == 1 else MessageTooLarge("large")

    made = Served(fail)
    with pytest.raises(MessageTooLarge, match=r"^large \(attempt 2; the one before: lost\)$") as caught:
        made.client.call("add", retry="idempotent")
    assert caught.value.may_have_run


def test_no_attempt_begins_after_close() -> None:
    made = Served()

    @per_attempt
    def close(request: OutgoingRequest, call_next: Next) -> Any:
        made.client.close()
        raise Unroutable("no")

    with pytest.raises(Unroutable, match=r"^no$"):
        made.client.with_options(middleware=[close]).call("add", retry="safe")
    assert made.client.stats()["retries"] == 0


def test_close_ends_a_pause() -> None:
    made = Served(timeout=None)
    made.answer = made.refuse
    view = made.client.with_options(middleware=[per_attempt(made.note)])
    pause = made.client._requests.life.pause

    def closing(seconds: float, is_over: Callable[[], bool]) -> None:
        made.client.close()
        began = time.monotonic()
        pause(SECONDS, is_over)
        assert time.monotonic() - began < SECONDS / 2

    made.client._requests.life.pause = closing  # type: ignore[method-assign]
    with pytest.raises(ClientClosed, match=r"the client is closed; make a new one \(attempt 2; the one before: "):
        view.call("add", retry="safe")


# -- submit ---------------------------------------------------------------------------------------------------------


def thread_names() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("jsonrpc-amqp-middleware")]


def test_submitted_calls_have_their_middleware_on_threads_of_the_client() -> None:
    made = Served()
    assert thread_names() == []
    on: list[str] = []

    def where(request: OutgoingRequest, call_next: Next) -> Any:
        on.append(threading.current_thread().name)
        return call_next(request)

    view = made.client.with_options(middleware=[where, made.note])
    with made.driven():
        assert ends(view.submit("add", [1])) == 3
        assert ends(view.submit_notify("log")) is None
        assert json.loads(ends(view.submit_raw(CALL)))["result"] == 3
    assert [request.method for request in made.requests] == ["add", "log", None]
    assert all(name.startswith("jsonrpc-amqp-middleware-") for name in on)
    assert 1 <= len(thread_names()) <= 3
    assert made.client.stats()["pending"] == 0
    made.client.close()
    assert thread_names() == []


def test_a_submitted_call_runs_in_the_context_of_its_caller() -> None:
    word = contextvars.ContextVar("word", default="")
    seen = []

    def read(request: OutgoingRequest, call_next: Next) -> Any:
        seen.append(word.get())
        word.set("changed")
        return request.method

    made = Served(read)
    word.set("mine")
    assert ends(made.client.submit("add")) == "add"
    assert made.client.call("add") == "add"
    assert (seen, word.get()) == (["mine", "mine"], "changed")
    made.client.close()


class Blocked:
    """A client all of whose threads wait in their middleware."""

    def __init__(self, **options: Any) -> None:
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.made = Served(self.block, **options)
        self.client = self.made.client
        self.futures: list[Any] = []
        for _ in range(MIDDLEWARE_THREADS):
            self.futures.append(self.client.submit("block"))
            assert self.begun.acquire(timeout=SECONDS)  # a call that waits for a thread counts as pending

    def block(self, request: OutgoingRequest, call_next: Next) -> Any:
        self.begun.release()
        assert self.gate.wait(SECONDS)
        return request.method

    def close(self) -> None:
        self.gate.set()
        assert wait(self.futures, SECONDS).not_done == set()
        self.client.close()
        assert thread_names() == []


@pytest.fixture
def blocked() -> Iterator[Blocked]:
    made = Blocked(max_pending=2)
    yield made
    made.close()


def test_submitted_calls_wait_for_a_thread(blocked: Blocked) -> None:
    waiting = [blocked.client.submit("a"), blocked.client.submit("b")]
    assert len(thread_names()) == MIDDLEWARE_THREADS
    assert blocked.client.stats()["pending"] == 2
    with pytest.raises(TooManyPending):
        blocked.client.submit("c")
    blocked.gate.set()
    assert [ends(each) for each in waiting] == ["a", "b"]
    assert blocked.client.stats()["pending"] == 0


def test_a_submitted_call_ends_at_its_deadline_while_it_waits_for_a_thread(blocked: Blocked) -> None:
    future = blocked.client.submit("a", timeout=5)
    now = time.monotonic()
    blocked.client._requests.on_tick(now + 4)
    blocked.client._requests.on_tick(now + 6)
    error = future.exception(0)
    assert isinstance(error, CallTimeout)
    assert not error.may_have_run
    assert str(error) == (
        "'S' could not be called within 5 s; nothing was sent: the 8 threads of this client for submitted calls with "
        "middleware were busy all the time"
    )
    assert blocked.client.stats()["timeouts"] == 1
    blocked.gate.set()


def test_a_submitted_call_that_waits_for_a_thread_can_be_cancelled(blocked: Blocked) -> None:
    future = blocked.client.submit("a")
    assert future.cancel()
    assert (blocked.client.stats()["pending"], blocked.client.stats()["cancelled"]) == (0, 1)
    assert blocked.begun.acquire(blocking=False) is False


def test_close_ends_submitted_calls_that_wait_for_a_thread() -> None:
    made = Blocked()
    future = made.client.submit("a")
    began = time.monotonic()
    made.client.close(timeout=0.01)
    assert time.monotonic() - began < SECONDS / 2
    assert isinstance(future.exception(0), ClientClosed)
    with pytest.raises(ClientClosed):
        made.client.submit("a")
    made.close()


def test_to_cancel_a_submitted_call_drops_the_one_in_flight() -> None:
    made = Served()
    sent = threading.Event()
    made.session.flush = sent.set  # type: ignore[method-assign]
    future = made.client.submit("add")
    assert sent.wait(SECONDS)
    while not made.client._requests._pending._calls:  # pragma: no cover  # it was flushed while it is pending
        time.sleep(0.001)
    future.cancel()
    made.client.close()  # waits for the thread
    assert future.cancelled()
    assert isinstance(made.seen[0], CancelledError)
    assert (made.client.stats()["pending"], made.client.stats()["cancelled"]) == (0, 1)


def test_nothing_is_sent_once_a_submitted_call_is_cancelled() -> None:
    gate, begun = threading.Event(), threading.Event()
    made = Served()

    def late(request: OutgoingRequest, call_next: Next) -> Any:
        begun.set()
        assert gate.wait(SECONDS)
        return call_next(request)

    future = made.client.with_options(middleware=[made.note, late]).submit("add")
    assert begun.wait(SECONDS)
    assert future.cancel()
    gate.set()
    made.client.close()
    assert isinstance(made.seen[0], CancelledError)
    assert made.bodies == []


def test_to_cancel_a_submitted_call_ends_its_pause() -> None:
    made = Served(timeout=None)
    made.answer = made.refuse
    begun = threading.Event()
    pause = made.client._requests.life.pause

    def pausing(seconds: float, is_over: Callable[[], bool]) -> None:
        begun.set()
        pause(seconds + SECONDS, is_over)

    made.client._requests.life.pause = pausing  # type: ignore[method-assign]
    view = made.client.with_options(middleware=[made.note, per_attempt(lambda request, call_next: call_next(request))])
    with made.driven():
        future = view.submit("add", retry="safe")
        assert begun.wait(SECONDS)
    began = time.monotonic()
    future.cancel()
    while not made.seen:
        time.sleep(0.001)
    assert time.monotonic() - began < SECONDS / 2
    assert isinstance(made.seen[0], CancelledError)
    made.client.close()


@pytest.mark.parametrize("error", [LookupError("no"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_of_a_submitted_call_is_that_of_its_future(error: BaseException) -> None:
    def fail(request: OutgoingRequest, call_next: Next) -> Any:
        raise error

    made = Served(fail)
    assert made.client.submit("add").exception(SECONDS) is error
    assert made.client.submit("add").exception(SECONDS) is error, "the thread goes on"
    made.client.close()


def test_where_there_can_be_no_thread_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Served()

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(NotConnected, match="cannot have another thread"):
            made.client.submit("add")
    assert made.client.stats()["pending"] == 0
    with made.driven():
        assert ends(made.client.submit("add")) == 3
    made.client.close()


@pytest.mark.parametrize("fails", [False, True])
def test_what_has_ended_is_freed_without_the_garbage_collector(fails: bool) -> None:
    made = Served()
    made.answer = made.refuse if fails else made.confirm_or_respond
    client, middleware = made.client, [lambda request, call_next: call_next(request)]
    view = client.with_options(middleware=[*middleware, per_attempt(middleware[0])])
    gc.collect()
    gc.disable()
    try:
        with made.driven(), suppress(Unroutable):
            future = view.submit("add", [1])
            gone = weakref.ref(future)
            future.result(SECONDS)
        del future
        with suppress(Unroutable):
            view.call("add", [1])
        watched = weakref.ref(view)
        del view
        deadline = time.monotonic() + SECONDS
        while (gone() or watched()) and time.monotonic() < deadline:
            time.sleep(0.001)  # for the thread, which lets go of the call behind its end
        assert gone() is None
        assert watched() is None
    finally:
        gc.enable()
        client.close()
