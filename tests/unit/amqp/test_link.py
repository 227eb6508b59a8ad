"""A link with a fake py-amqp: what it sets up, which operation is under way, and whose errors are whose."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from amqp.exceptions import AccessRefused as AmqpAccessRefused
from amqp.exceptions import NotFound

from jsonrpc_amqp.amqp.base import DIRECT_REPLY_TO, Plan, QueueFacts
from jsonrpc_amqp.amqp.frames import Frame
from jsonrpc_amqp.amqp.link import Link
from jsonrpc_amqp.amqp.url import BrokerURL
from jsonrpc_amqp.errors import AccessRefused, ConnectionLost, NotConnected, TopologyMismatch, TransportError

URL = BrokerURL("there", 5672, "joe", "secret", "/", tls=False)
CONTROL, CONSUMER, PUBLISHER, CONFIRMER = 1, 2, 3, 4
SERVER = Plan("jsonrpc", queue="q", bindings=("a.#", "b.#"), prefetch=9)
CLIENT = Plan("jsonrpc", reply_queue="exclusive", bindings=("r.#",))


class FakeChannel:
    """A channel of py-amqp: its methods are written down; on a live link the test gives their replies."""

    def __init__(self, connection: FakeConnection, number: int) -> None:
        self._connection = connection
        self.number = number
        self.channel_id: int | None = number
        self.waiting: list[Callable[[tuple[Any, ...]], None] | None] = []
        self._reply: Callable[[tuple[Any, ...]], None] | None = None

    def expecting(self, reply: Callable[[tuple[Any, ...]], None] | None) -> None:
        self._reply = reply

    def reply(self, *args: Any) -> None:
        """The broker replies to the oldest method."""
        waiting = self.waiting.pop(0)
        assert waiting is not None
        waiting(args)

    def _sent(self, method: str, *args: Any) -> None:
        self._connection.sent.append((self.number, method, *args))
        if self._connection.live or self._connection.is_pipelined:
            self.waiting.append(self._reply)
            self._reply = None

    def exchange_declare(self, exchange: str, kind: str, *, passive: bool = False, **options: Any) -> None:
        self._sent("exchange_declare", exchange, "passive" if passive else kind)

    def queue_declare(self, queue: str, *, passive: bool = False, **options: Any) -> Any:
        self._sent("queue_declare", queue, "passive" if passive else "")
        return cast(Any, FakeQueue("amq.gen-1"))

    def queue_bind(self, queue: str, exchange: str, key: str) -> None:
        self._sent("queue_bind", queue, exchange, key)

    def exchange_bind(self, destination: str, source: str, key: str, **options: Any) -> None:
        self._sent("exchange_bind", destination, source)

    def confirm_select(self) -> None:
        self._connection.sent.append((self.number, "confirm_select"))

    def basic_qos(self, size: int, count: int, is_global: bool) -> None:
        self._sent("basic_qos", count)

    def basic_consume(self, queue: str, *, no_ack: bool) -> str:
        self._sent("basic_consume", queue, no_ack)
        return "tag-1"


class FakeQueue:
    def __init__(self, queue: str) -> None:
        self.queue = queue


class FakeTransport:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._read_buffer = bytearray(b"early")
        self._write: Callable[[bytes | bytearray], None] = lambda data: None


class FakeConnection:
    """
    A connection of py-amqp.

    Attributes:
        sent: The methods that were sent: the channel, the name, and what matters of the arguments.
        opened: The numbers of the channels, in the order in which they were opened.
        raises: What ``handle`` raises.
        peer: The other end of its socket.
        pipelines: How many times all answers were waited for at once.
    """

    peer: socket.socket
    heartbeat = 10.0
    channel_max = 2047
    live = False
    on_channel_closed: Callable[[int, Exception], None]

    def __init__(self, sock: socket.socket) -> None:
        self.transport = FakeTransport(sock)
        self.channels: dict[int, Any] | None = {0: self}
        self.sent: list[tuple[Any, ...]] = []
        self.opened: list[int] = []
        self.handled: list[Frame] = []
        self.raises: Exception | None = None
        self.is_pipelined = False
        self.pipelines = 0

    @contextmanager
    def pipelined(self) -> Iterator[None]:
        self.is_pipelined = True
        yield
        self.pipelines += 1
        for number in self.opened:
            waiting, self.channel(number).waiting = self.channel(number).waiting, []
            for reply in filter(None, waiting):
                reply(("amq.gen-1", 0, 0))
        self.is_pipelined = False

    def decoder(self, *, max_body: int) -> Any:
        return ("decoder", max_body)

    def encoder(self) -> Any:
        return "encoder"

    def open_channel(self, number: int) -> FakeChannel:
        assert self.channels is not None
        self.opened.append(number)
        channel = self.channels[number] = FakeChannel(self, number)
        return channel

    def handle(self, frame: Frame) -> None:
        self.handled.append(frame)
        if self.raises is not None:
            raise self.raises

    # -- what the test does ---------------------------------------------------------------------------

    def channel(self, number: int) -> FakeChannel:
        assert self.channels is not None
        channel = self.channels[number]
        assert isinstance(channel, FakeChannel)
        return channel

    def since(self) -> list[tuple[Any, ...]]:
        """Return what was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent

    def close_channel(self, number: int, error: Exception) -> None:
        """The broker closes a channel."""
        channel = self.channel(number)
        channel.channel_id = None
        assert self.channels is not None
        del self.channels[number]
        self.on_channel_closed(number, error)


@pytest.fixture
def amqp() -> Iterator[FakeConnection]:
    near, far = socket.socketpair()
    with near, far:
        connection = FakeConnection(near)
        connection.peer = far
        yield connection


class Live:
    """
    A live link.

    Attributes:
        closed: The channels that were reported as closed, with the error.
        outcomes: What operations came to.
    """

    def __init__(self, amqp: FakeConnection, plan: Plan) -> None:
        self.amqp = amqp
        self.link = Link(cast(Any, amqp), plan, URL, max_body=99)
        self.closed: list[tuple[int, TransportError]] = []
        self.written: list[bytes] = []
        self.blocked: list[bool] = []
        self.outcomes: list[Any] = []
        self.early = self.link.go_live(
            write=self.written.append,
            on_channel_closing=lambda number: None,
            on_channel_closed=lambda number, error: self.closed.append((number, error)),
            on_consumer_cancelled=lambda tag: None,
            on_blocked=self.blocked.append,
            on_closed=lambda: None,
        )
        amqp.since()


@pytest.fixture
def server(amqp: FakeConnection) -> Live:
    return Live(amqp, SERVER)


@pytest.fixture
def client(amqp: FakeConnection) -> Live:
    return Live(amqp, CLIENT)


# -- setting up -----------------------------------------------------------------------------------------------------


def test_a_server_declares_binds_and_consumes_last(amqp: FakeConnection) -> None:
    link = Link(cast(Any, amqp), SERVER, URL, max_body=99)
    assert amqp.sent == [
        (CONTROL, "exchange_declare", "jsonrpc", "topic"),
        (CONTROL, "queue_declare", "q", ""),
        (CONTROL, "queue_bind", "q", "jsonrpc", "a.#"),
        (CONTROL, "queue_bind", "q", "jsonrpc", "b.#"),
        (CONSUMER, "basic_qos", 9),
        (CONSUMER, "basic_consume", "q", False),
    ]
    assert (link.consumer_channel, link.publisher_channel, link.default_channel) == (CONSUMER, PUBLISHER, CONFIRMER)
    assert (link.reply_queue, link.sends_requests, cast(Any, link.decoder)) == ("", False, ("decoder", 99))
    assert amqp.pipelines == 1  # none of it waited for what came before, but for the consumer


def test_a_client_consumes_its_own_reply_queue_without_acks(amqp: FakeConnection) -> None:
    link = Link(cast(Any, amqp), CLIENT, URL, max_body=99)
    assert amqp.sent[-3:] == [
        (CONTROL, "queue_declare", "", ""),
        (CONTROL, "queue_bind", "", "jsonrpc", "r.#"),  # the queue that was declared last
        (CONSUMER, "basic_consume", "amq.gen-1", True),
    ]
    assert (link.reply_queue, link.sends_requests) == ("amq.gen-1", True)


@pytest.mark.parametrize("confirm", [False, True])
def test_direct_requests_leave_by_the_channel_that_consumes(amqp: FakeConnection, confirm: bool) -> None:
    link = Link(cast(Any, amqp), Plan("", reply_queue="direct", confirm=confirm), URL, max_body=99)
    assert amqp.sent[-1] == (CONSUMER, "basic_consume", DIRECT_REPLY_TO, True)
    assert link.publisher_channel == link.consumer_channel
    assert (link.confirmer_channel == link.consumer_channel) is confirm
    assert (link.confirmer_channel, "confirm_select") in amqp.sent


def test_a_passive_plan_declares_and_binds_nothing(amqp: FakeConnection) -> None:
    Link(cast(Any, amqp), Plan("jsonrpc", declare=False, queue="q", bindings=("a.#",)), URL, max_body=99)
    assert [call[1:] for call in amqp.sent if call[1] != "confirm_select"] == [
        ("exchange_declare", "jsonrpc", "passive"),
        ("queue_declare", "q", "passive"),
        ("basic_consume", "q", False),
    ]


@pytest.mark.parametrize(
    ("plan", "needed"),
    [
        (SERVER, 4),
        (CLIENT, 4),
        (Plan("jsonrpc", reply_queue="direct"), 3),
        (Plan("jsonrpc", reply_queue="direct", confirm=True), 2),
    ],
)
def test_a_link_needs_so_many_channels(amqp: FakeConnection, plan: Plan, needed: int) -> None:
    amqp.channel_max = needed - 1
    with pytest.raises(NotConnected, match=f"there:5672 allows {needed - 1} channels .*, and {needed} are needed"):
        Link(cast(Any, amqp), plan, URL, max_body=99)
    assert amqp.opened == []
    amqp.channel_max = needed
    Link(cast(Any, amqp), plan, URL, max_body=99)
    assert len(amqp.opened) == needed


# -- live -----------------------------------------------------------------------------------------------------------


def test_the_socket_is_taken_over(server: Live) -> None:
    transport = server.amqp.transport
    assert server.early == b"early"
    assert transport._read_buffer == b""
    assert server.link.read(10) is None  # it does not block
    transport._write(bytearray(b"written"))
    assert server.written == [b"written"]
    assert server.amqp.live


def test_an_alarm_and_its_end_are_reported(server: Live) -> None:
    amqp: Any = server.amqp
    amqp.on_blocked("low on memory")
    amqp.on_unblocked()
    assert server.blocked == [True, False]


def test_a_full_socket_takes_what_it_can(server: Live) -> None:
    taken = [server.link.write(bytes(1 << 20)) for _ in range(8)]
    assert taken[0] > 0
    assert taken[-1] == 0


def test_it_knows_whether_something_waits_to_be_read_and_whether_more_may_follow(server: Live) -> None:
    seen = [server.link.has_unread()]
    server.amqp.peer.send(b"x")
    seen.append(server.link.has_unread())
    server.amqp.peer.close()
    seen.append(server.link.has_unread())
    assert seen == [False, True, False]
    assert server.link.read(10) == b"x"
    assert not server.link.has_unread()


def test_a_frame_of_a_channel_that_is_gone_is_dropped(server: Live) -> None:
    server.link.handle(Frame(1, 77, b""))
    server.amqp.channels = None
    server.link.handle(Frame(1, 0, b""))
    assert server.amqp.handled == []


def test_an_error_of_py_amqp_ends_the_connection(server: Live) -> None:
    server.amqp.raises = ValueError("odd frame")
    with pytest.raises(ConnectionLost, match="there:5672 ended: odd frame"):
        server.link.handle(Frame(1, 0, b""))
    server.amqp.raises = error = ConnectionLost("ours")
    with pytest.raises(ConnectionLost) as caught:
        server.link.handle(Frame(1, 0, b""))
    assert caught.value is error


def test_numbers_of_channels_are_not_used_again_until_all_were(amqp: FakeConnection) -> None:
    amqp.channel_max = 6
    live = Live(amqp, SERVER)
    for _ in range(4):
        amqp.close_channel(live.link.publisher_channel, NotFound("gone"))
        live.link.reopen_publisher()
    assert amqp.opened == [1, 2, 3, 4, 5, 6, 3, 5]


def test_without_a_free_channel_the_connection_is_given_up(amqp: FakeConnection) -> None:
    amqp.channel_max = 4
    live = Live(amqp, SERVER)
    with pytest.raises(ConnectionLost, match="allows 4 channels per connection, and all are in use"):
        live.link.reopen_publisher()


def test_a_new_confirmer_is_in_confirm_mode(server: Live) -> None:
    server.link.reopen_confirmer()
    assert server.link.confirmer_channel == 5
    assert server.amqp.since() == [(5, "confirm_select")]


# -- operations -----------------------------------------------------------------------------------------------------


def test_no_operation_waits_for_the_one_before(client: Live) -> None:
    link, control = client.link, client.amqp.channel(CONTROL)
    link.bind("a.#", client.outcomes.append)
    link.inspect("q", client.outcomes.append)
    assert link.is_busy
    assert client.amqp.since() == [
        (CONTROL, "queue_bind", "amq.gen-1", "jsonrpc", "a.#"),
        (CONTROL, "queue_declare", "q", "passive"),
    ]
    control.reply()
    assert client.outcomes == [None]
    control.reply("q", 3, 2)
    assert client.outcomes == [None, QueueFacts(3, 2)]
    assert not link.is_busy


def test_an_error_of_the_channel_fails_the_first_operation_only(client: Live) -> None:
    link = client.link
    link.inspect("missing", client.outcomes.append)
    link.bind("a.#", client.outcomes.append)
    client.amqp.since()
    client.amqp.close_channel(CONTROL, NotFound("no queue"))
    [error] = client.outcomes
    assert isinstance(error, TopologyMismatch)
    assert client.closed == []  # no one else uses that channel
    assert client.amqp.since() == [(5, "queue_bind", "amq.gen-1", "jsonrpc", "a.#")]
    client.amqp.channel(5).reply()
    assert client.outcomes == [error, None]


def test_the_error_of_an_operation_is_ours(client: Live) -> None:
    client.link.bind("a.#", client.outcomes.append)
    client.amqp.close_channel(CONTROL, AmqpAccessRefused("ACCESS_REFUSED", (50, 20)))
    [error] = client.outcomes
    assert isinstance(error, AccessRefused)


def test_an_error_of_another_channel_is_reported(client: Live) -> None:
    client.link.inspect("q", client.outcomes.append)
    client.amqp.close_channel(PUBLISHER, NotFound("no exchange"))
    [(number, error)] = client.closed
    assert (number, type(error)) == (PUBLISHER, TopologyMismatch)
    assert client.outcomes == []
    client.amqp.channel(CONTROL).reply("q", 0, 0)
    assert client.outcomes == [QueueFacts(0, 0)]


def test_a_control_channel_without_an_operation_is_replaced(client: Live) -> None:
    client.amqp.close_channel(CONTROL, NotFound("late"))
    client.link.inspect("q", client.outcomes.append)
    assert client.amqp.since() == [(5, "queue_declare", "q", "passive")]


# -- redeclare ------------------------------------------------------------------------------------------------------


def done(live: Live) -> Callable[[], None]:
    return lambda: live.outcomes.append("done")


def test_redeclare_declares_and_binds_all_and_what_was_added(client: Live) -> None:
    client.link.bind("late.#", client.outcomes.append)
    client.amqp.channel(CONTROL).reply()
    client.amqp.since()
    client.link.redeclare(done(client))
    for _ in range(3):
        assert client.outcomes == [None]
        client.amqp.channel(CONTROL).reply()
    assert client.outcomes == [None, "done"]
    assert client.amqp.since() == [
        (CONTROL, "exchange_declare", "jsonrpc", "topic"),
        (CONTROL, "queue_bind", "amq.gen-1", "jsonrpc", "r.#"),
        (CONTROL, "queue_bind", "amq.gen-1", "jsonrpc", "late.#"),
    ]


def test_redeclare_with_nothing_to_declare_is_done_at_once(amqp: FakeConnection) -> None:
    live = Live(amqp, Plan("", queue="q"))
    live.link.redeclare(done(live))
    assert live.outcomes == ["done"]
    live.link.redeclare()
    assert amqp.since() == []


def fail_step(live: Live) -> None:
    control = max(live.amqp.opened) if live.amqp.opened[-1] > CONFIRMER else CONTROL
    live.amqp.close_channel(control, NotFound("no exchange"))


def test_a_server_redeclares_three_times_at_most(server: Live) -> None:
    server.link.redeclare(done(server))
    for _ in range(2):
        fail_step(server)
    with pytest.raises(ConnectionLost, match="what was declared is gone, and cannot be declared again: "):
        fail_step(server)
    assert server.outcomes == []


def test_what_comes_behind_an_error_is_dropped(amqp: FakeConnection) -> None:
    many = tuple(f"{number}.#" for number in range(50))
    server = Live(amqp, Plan("jsonrpc", queue="q", bindings=many))
    server.link.redeclare(done(server))
    assert len(amqp.since()) == 51
    fail_step(server)
    sent = amqp.since()
    assert sent == [(5, "exchange_declare", "jsonrpc", "topic")]
    for _ in range(52):
        assert server.outcomes == []
        amqp.channel(5).reply()
    assert server.outcomes == ["done"]
    assert len(amqp.since()) == 51


def test_only_some_bindings_are_redeclared_if_so_asked(client: Live) -> None:
    for key in ("a.#", "b.#"):
        client.link.bind(key, client.outcomes.append)
        client.amqp.channel(CONTROL).reply()
    client.amqp.since()
    client.link.redeclare(bindings=["b.#", "not bound yet"])
    assert [step[1:] for step in client.amqp.since()] == [
        ("exchange_declare", "jsonrpc", "topic"),
        ("queue_bind", "amq.gen-1", "jsonrpc", "b.#"),
    ]


def test_a_second_attempt_may_succeed(server: Live) -> None:
    server.link.redeclare(done(server))
    fail_step(server)
    for _ in range(4):
        assert server.outcomes == []
        server.amqp.channel(max(server.amqp.opened)).reply()
    assert server.outcomes == ["done"]
    # Perhaps it was the queue that was missing.
    assert (max(server.amqp.opened), "queue_declare", "q", "") in server.amqp.since()


def test_a_server_declares_its_queue_again_where_that_may_be_gone(server: Live) -> None:
    server.link.redeclare(done(server), queue=True)
    for _ in range(4):
        assert server.outcomes == []
        server.amqp.channel(CONTROL).reply()
    assert server.outcomes == ["done"]
    assert server.amqp.since() == [
        (CONTROL, "exchange_declare", "jsonrpc", "topic"),
        (CONTROL, "queue_declare", "q", ""),
        (CONTROL, "queue_bind", "q", "jsonrpc", "a.#"),
        (CONTROL, "queue_bind", "q", "jsonrpc", "b.#"),
    ]


def test_the_channel_that_consumes_its_tag_and_its_queue(server: Live) -> None:
    link = server.link
    assert (link.consumer_tag, link.queue) == ("tag-1", "q")
    assert link.consumer is cast(Any, server.amqp.channel(CONSUMER))
    server.amqp.channels = None
    assert link.consumer is None


def test_the_queue_of_a_client_is_that_of_its_replies(client: Live) -> None:
    assert client.link.queue == "amq.gen-1"


def test_a_client_does_not_try_again(client: Live) -> None:
    client.link.redeclare(done(client))
    with pytest.raises(ConnectionLost, match="cannot be declared again"):
        fail_step(client)


# -- a right that was taken away ------------------------------------------------------------------------------------


def refuse_step(live: Live) -> None:
    control = max(live.amqp.opened) if live.amqp.opened[-1] > CONFIRMER else CONTROL
    live.amqp.close_channel(control, AmqpAccessRefused("no access"))


def reply_to_step(live: Live) -> None:
    control = max(live.amqp.opened) if live.amqp.opened[-1] > CONFIRMER else CONTROL
    live.amqp.channel(control).reply()


def steps(live: Live) -> list[tuple[Any, ...]]:
    """Answer each step of a redeclaration; return the steps without their channels."""
    live.amqp.since()
    live.link.redeclare()
    while live.link.is_busy:
        reply_to_step(live)
    return [step[1:] for step in live.amqp.since()]


def test_a_declaration_that_is_refused_is_no_loss_and_is_a_check_from_then_on(
    client: Live, caplog: pytest.LogCaptureFixture
) -> None:
    client.link.redeclare()
    refuse_step(client)
    reply_to_step(client)
    assert not client.link.is_busy
    for _ in range(2):
        assert steps(client) == [
            ("exchange_declare", "jsonrpc", "passive"),
            ("queue_bind", "amq.gen-1", "jsonrpc", "r.#"),
        ]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the exchange is not declared again on this connection, which goes on: " in caplog.text


def test_a_check_that_is_refused_as_well_is_left(client: Live) -> None:
    for _ in range(2):
        client.link.redeclare()
        refuse_step(client)
        reply_to_step(client)
    assert steps(client) == [("queue_bind", "amq.gen-1", "jsonrpc", "r.#")]


def test_a_binding_that_is_refused_is_left(client: Live) -> None:
    client.link.redeclare()
    reply_to_step(client)
    refuse_step(client)
    assert steps(client) == [("exchange_declare", "jsonrpc", "topic")]


def test_where_all_is_refused_nothing_is_asked_any_more(client: Live) -> None:
    for _ in range(2):
        client.link.redeclare()
        while client.link.is_busy:
            refuse_step(client)
    assert steps(client) == []


def test_an_exchange_that_is_gone_is_a_loss_where_declaring_is_refused(server: Live) -> None:
    server.link.redeclare(done(server))  # since a publish found no exchange
    for _ in range(2):
        refuse_step(server)
    with pytest.raises(ConnectionLost, match="cannot be declared again: "):
        refuse_step(server)
    assert server.outcomes == []


@pytest.mark.parametrize(
    ("plan", "can"), [(SERVER, True), (CLIENT, False), (Plan("jsonrpc", queue="q", declare=False), False)]
)
def test_who_can_redeclare_a_missing_exchange(amqp: FakeConnection, plan: Plan, can: bool) -> None:
    assert Live(amqp, plan).link.can_redeclare is can
