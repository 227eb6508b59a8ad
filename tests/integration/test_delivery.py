"""Redelivered requests: run again, not run again, or left to the dead letters."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from jsonrpc_amqp import Client, Dispatcher, Server, ServerError, current_request
from jsonrpc_amqp.amqp.base import Delivery, Plan
from jsonrpc_amqp.amqp.transport import connect_transport
from jsonrpc_amqp.errors import DELIVERY_LIMIT_REACHED, REDELIVERY_REFUSED

from ..tools import wait_for
from ..transport_tools import Recorder

LIMIT = 20


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, service: str) -> str:
    """Return a URL."""
    return f"memory://{service}" if request.param == "memory" else str(request.getfixturevalue("url"))


class Loser:
    """Stands for servers that take requests and die: all that it held is redelivered."""

    def __init__(self, place: str, service: str, **options: Any) -> None:
        self._plan = Plan(
            "jsonrpc",
            queue=f"{service}_req",
            bindings=(f"{service}.request.#",),
            prefetch=100,
            **{"delivery_limit": LIMIT, **options},
        )
        self._place = place
        self._recorder = self._connect()

    def _connect(self) -> Recorder:
        return Recorder(connect_transport(self._place), self._plan).start()

    def lose(self, count: int, times: int = 1) -> None:
        """Wait for ``count`` requests, and lose them; do so ``times`` times in all."""
        for _ in range(times):
            self._recorder.wait_for(lambda: len(self._recorder.deliveries) >= count)
            self._recorder.close()
            if _ < times - 1:
                self._recorder = self._connect()


def dead_letters(place: str, service: str, count: int) -> list[Delivery]:
    """Take all messages from the queue of dead letters."""
    graves = Recorder(connect_transport(place), Plan("jsonrpc", declare=False, queue=f"{service}_dead", prefetch=10))
    graves.start()
    graves.wait_for(lambda: len(graves.deliveries) >= count)
    for delivery in graves.deliveries:
        graves.ack(delivery)
    graves.close()
    return graves.deliveries


def recording(runs: list[Any], pause: float = 0) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        runs.append(value)
        time.sleep(pause)
        return value

    return run


def submit_all(client: Client, method: str, values: range) -> list[Future[Any]]:
    return [client.submit(method, [value]) for value in values]


def test_a_redelivered_request_runs_and_says_so(place: str, service: str) -> None:
    loser = Loser(place, service)
    with Client(place, service) as client:
        reply = client.submit("redelivered")
        loser.lose(1)
        with Server(place, service, methods={"redelivered": lambda: current_request().redelivered}) as server:
            assert reply.result(10) is True
            assert client.call("redelivered") is False
            assert server.stats()["redelivered"] == 1


def test_a_server_that_does_not_run_redelivered_requests_replies_with_an_error(place: str, service: str) -> None:
    runs: list[Any] = []
    loser = Loser(place, service)
    with Client(place, service) as client:
        reply = client.submit("run", [1])
        loser.lose(1)
        with Server(place, service, methods={"run": recording(runs)}, redelivery="refuse") as server:
            with pytest.raises(ServerError, match="is not run again") as caught:
                reply.result(10)
            assert caught.value.code == REDELIVERY_REFUSED
            assert client.call("run", [2]) == 2
            assert runs == [2]
            assert server.stats()["dead_lettered"] == 0


def test_a_method_may_override_its_server(place: str, service: str) -> None:
    loser = Loser(place, service)
    server = Server(place, service, redelivery="refuse")
    server.method("again", redelivery="run")(lambda: "again")
    server.method("once")(lambda: "once")
    with Client(place, service) as client:
        again, once = client.submit("again"), client.submit("once")
        loser.lose(2)
        with server:
            assert again.result(10) == "again"
            with pytest.raises(ServerError):
                once.result(10)


def test_each_member_of_a_batch_has_its_own_policy(place: str, service: str) -> None:
    loser = Loser(place, service)
    server = Server(place, service)
    server.method("once", redelivery="refuse")(lambda: "once")
    server.method("again")(lambda: "again")
    threading.Thread(target=lambda: loser.lose(1)).start()
    with Client(place, service) as client:
        starter = threading.Timer(0.5, server.start)
        starter.start()
        with client.batch() as batch:
            once, again = batch.call("once"), batch.call("again")
        starter.join()
        assert again.result() == "again"
        assert isinstance(once.exception(), ServerError)
    server.stop()


def test_a_notification_that_is_not_run_is_kept_though_its_batch_has_a_reply(place: str, service: str) -> None:
    loser, runs = Loser(place, service, dead_letters=f"{service}_dead"), []  # type: tuple[Loser, list[int]]
    server = Server(place, service, dead_letters=True)
    server.method("pay", redelivery="refuse")(runs.append)
    server.method("again")(lambda: "again")
    with Client(place, service, timeout=10) as client:
        future = ThreadPoolExecutor(1).submit(
            client.send_raw,
            b'[{"jsonrpc":"2.0","method":"again","id":1},{"jsonrpc":"2.0","method":"pay","params":[1]}]',
        )
        loser.lose(1)
        with server:
            assert json.loads(future.result(10) or b"") == [{"jsonrpc": "2.0", "result": "again", "id": 1}]
            [letter] = dead_letters(place, service, 1)
            assert b'"pay"' in (letter.body or b"")
            assert runs == []


def test_a_notification_that_is_not_run_becomes_a_dead_letter(place: str, service: str) -> None:
    runs: list[Any] = []
    loser = Loser(place, service, dead_letters=f"{service}_dead")
    with Client(place, service) as client:
        client.notify("run", [1])
        loser.lose(1)
        # Early acks too: what is not run is not acknowledged early.
        options: Any = {"redelivery": "refuse", "ack": "early", "dead_letters": True}
        with Server(place, service, methods={"run": recording(runs)}, **options) as server:
            [letter] = dead_letters(place, service, 1)
            assert b'"run"' in (letter.body or b"")
            assert letter.headers["x-first-death-reason"] == "rejected"
            assert server.stats()["dead_lettered"] == 1
            assert client.call("run", [2]) == 2
            assert runs == [2]


@pytest.mark.parametrize("ack", ["early", "late"])
def test_early_acks_make_room_while_the_method_runs(place: str, service: str, ack: Any) -> None:
    second = threading.Event()
    server = Server(place, service, prefetch=1, concurrency=2)
    server.method("first", ack=ack)(lambda: second.wait(1))
    server.method("second")(second.set)
    with server, Client(place, service) as client:
        first = client.submit("first")
        client.call("second")
        assert first.result(10) is (ack == "early")


def test_a_batch_is_acknowledged_early_only_if_all_of_it_is(place: str, service: str) -> None:
    second = threading.Event()
    server = Server(place, service, prefetch=1, concurrency=2)
    server.method("early", ack="early")(lambda: second.wait(0.5))
    server.method("late")(lambda: None)
    server.method("second")(second.set)
    with server, Client(place, service) as client:
        for others, expected in ((["late"], False), (["early"], True)):
            second.clear()
            waiting = client.submit("second") if expected else None
            with client.batch() as batch:
                reply = batch.call("early")
                for other in others:
                    batch.call(other)
                if waiting is None:
                    waiting = client.submit("second")
            assert waiting is not None
            waiting.result(10)
            del reply


def test_redelivered_requests_begin_one_at_a_time_and_the_rest_beside_them(place: str, service: str) -> None:
    lock, running, ended, order = threading.Lock(), [0, 0], [0, 0], []
    seen: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])

    def run(value: int) -> int:
        kind = int(current_request().redelivered)
        with lock:
            running[kind] += 1
            seen[kind].append((running[kind], ended[kind]))
            order.append(value)
        time.sleep(0.03)
        with lock:
            running[kind] -= 1
            ended[kind] += 1
        return value

    loser = Loser(place, service)
    with Client(place, service) as client:
        back = submit_all(client, "run", range(10))
        loser.lose(10)
        with Server(place, service, methods={"run": run}):
            fresh = submit_all(client, "run", range(10, 20))
            assert [each.result(10) for each in back + fresh] == list(range(20))
    assert seen[1][0] == (1, 0)
    assert all(beside <= done + 1 for beside, done in seen[1]), seen[1]
    assert max(beside for beside, _done in seen[1]) > 1
    assert any(beside > done + 1 for beside, done in seen[0])
    back_order = [value for value in order if value < 10]
    assert back_order != list(range(10)), "they run in random order, so this fails once in 3.6 million runs"


def test_a_handler_that_hangs_does_not_hold_up_redelivered_requests(
    place: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jsonrpc_amqp.server.redelivery._LONG_SECONDS", 0.2)
    hang = threading.Event()

    def run(value: int) -> int:
        if value < 3:
            hang.wait(20)
        return value

    loser = Loser(place, service)
    with Client(place, service) as client:
        back = submit_all(client, "run", range(30))
        loser.lose(30)
        with Server(place, service, methods={"run": run}):
            try:
                assert [each.result(15) for each in back[3:]] == list(range(3, 30))
            finally:
                hang.set()


def test_a_redelivered_request_may_call_another(place: str, service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jsonrpc_amqp.server.redelivery._LONG_SECONDS", 0.2)
    loser = Loser(place, service)
    with Client(place, service) as client, Client(place, service) as inner:
        asked = threading.Event()

        def outer() -> int:
            asked.wait(10)
            return int(inner_call.result(10))

        outer_call = client.submit("outer")
        inner_call = inner.submit("inner")
        loser.lose(2)
        with Server(place, service, methods={"outer": outer, "inner": lambda: 5}):
            asked.set()
            assert outer_call.result(10) == 5


def test_what_was_redelivered_most_often_runs_last(place: str, service: str) -> None:
    runs: list[int] = []
    loser = Loser(place, service, queue_type="quorum")
    with Client(place, service) as client:
        [suspect] = submit_all(client, "run", range(1))
        loser.lose(1, times=2)
        loser = Loser(place, service, queue_type="quorum")
        others = submit_all(client, "run", range(1, 6))
        loser.lose(6)
        with Server(place, service, methods={"run": recording(runs)}, queue_type="quorum"):
            assert [each.result(10) for each in [suspect, *others]] == list(range(6))
    assert runs[-1] == 0


def test_at_the_delivery_limit_the_reply_is_an_error_and_a_dead_letter_is_kept(place: str, service: str) -> None:
    runs: list[Any] = []
    options: Any = {"queue_type": "quorum", "delivery_limit": 2}
    loser = Loser(place, service, **options, dead_letters=f"{service}_dead")
    with Client(place, service) as client:
        reply = client.submit("run", [1])
        loser.lose(1, times=2)
        with Server(place, service, methods={"run": recording(runs)}, **options, dead_letters=True) as server:
            with pytest.raises(ServerError, match="limit") as caught:
                reply.result(10)
            assert caught.value.code == DELIVERY_LIMIT_REACHED
            [letter] = dead_letters(place, service, 1)
            assert b'"run"' in (letter.body or b"")
            assert server.stats()["dead_lettered"] == 1
            assert runs == []
            assert client.call("run", [2]) == 2


def test_at_the_delivery_limit_each_call_of_a_batch_has_an_error_and_a_notification_has_no_reply() -> None:
    refuse = Dispatcher({"a": lambda: 1}).reject_at_limit
    notification = b'{"jsonrpc": "2.0", "method": "a"}'
    call = b'{"jsonrpc": "2.0", "method": "a", "id": 7}'
    junk = b"5"
    assert refuse(notification) is None
    reply = refuse(b"[%b,%b,%b]" % (call, notification, junk)) or b""
    assert reply.count(b'"code":-32002') == 1
    assert reply.count(b'"code":-32600') == 1
    assert b'"id":7' in reply


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","method":"shut"}',
        b'[{"jsonrpc":"2.0","method":"open"},{"jsonrpc":"2.0","method":"shut"}]',
        b'[{"jsonrpc":"2.0","method":"shut"},{"jsonrpc":"2.0","method":"open"}]',
    ],
)
@pytest.mark.parametrize(
    ("options", "times"), [({"queue_type": "quorum", "delivery_limit": 2}, 2), ({"redelivery": "refuse"}, 1)]
)
def test_what_may_not_run_is_no_dead_letter(
    place: str, service: str, body: bytes, options: dict[str, Any], times: int
) -> None:
    """An operator who sent it again would do so under their own name, and it would run."""
    queue = {name: value for name, value in options.items() if name != "redelivery"}
    loser, runs = Loser(place, service, **queue, dead_letters=f"{service}_dead"), []  # type: tuple[Loser, list[str]]
    methods = {"open": lambda: runs.append("open"), "shut": lambda: runs.append("shut")}
    with Client(place, service, timeout=10) as client:
        client.send_raw(body)
        loser.lose(1, times)
        server = Server(
            place, service, methods=methods, dead_letters=True, authorize=lambda r: r.method == "open", **options
        )
        with server:
            wait_for(lambda: server.stats()["refused"] == 1)
            assert client.call("open") is None
            assert (runs, server.stats()["dead_lettered"]) == (["open"], 0)


def test_expired_calls_are_no_dead_letters(place: str, service: str) -> None:
    with Server(place, service, dead_letters=True):
        pass
    with Client(place, service) as client:
        expired = client.submit("run", timeout=0.2)
        client.notify("late")
        assert expired.exception(5) is not None
        loser = Loser(place, service, dead_letters=f"{service}_dead")
        loser.lose(1)
        with Server(place, service, redelivery="refuse", methods={"late": lambda: None}, dead_letters=True):
            [letter] = dead_letters(place, service, 1)
            assert b'"late"' in (letter.body or b"")


def test_draining_gives_back_redelivered_requests_that_have_not_begun(place: str, service: str) -> None:
    runs: list[int] = []
    loser = Loser(place, service)
    with Client(place, service) as client:
        replies = submit_all(client, "run", range(5))
        loser.lose(5)
        first = Server(place, service, methods={"run": recording(runs, pause=0.3)}).start()
        replies_done = threading.Event()
        for each in replies:
            each.add_done_callback(lambda _future: replies_done.set())
        assert replies_done.wait(10)
        assert first.stop()
        assert len(runs) < 5
        with Server(place, service, methods={"run": recording(runs)}):
            assert [each.result(10) for each in replies] == list(range(5))
        assert sorted(runs) == list(range(5))
