"""What py-amqp reads and writes while it blocks: within one deadline, and nothing twice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from struct import pack
from typing import Any

import amqp
import pytest

from jsonrpc_amqp.amqp import deadline as deadline_module
from jsonrpc_amqp.amqp import py_amqp
from jsonrpc_amqp.amqp.deadline import Deadline
from jsonrpc_amqp.amqp.frames import Frame
from jsonrpc_amqp.amqp.happy_eyeballs import AddressMemory

from .fakes import Clock

HEARTBEAT = pack(">BHIB", 8, 0, 0, 0xCE)
METHOD = pack(">BHIHHB", 1, 1, 4, 20, 11, 0xCE)


class Reader:
    """A connection of py-amqp's over a pair of sockets."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.far = far
        self.deadline = Deadline(5)
        make: Any = py_amqp.AmqpConnection
        self.connection = make(peer=("broker", 5672), deadline=self.deadline, memory=AddressMemory(), heartbeat=0)
        self.transport = self.connection.Transport("broker", None)
        self.transport.sock = near
        self.transport._setup_transport()
        self.connection._transport = self.transport


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deadline_module, "time", clock)
    return clock


@pytest.fixture
def reader(clock: Clock) -> Iterator[Reader]:
    near, far = socket.socketpair()
    with near, far:
        yield Reader(near, far)


def test_a_look_at_a_part_of_a_frame_does_not_wait_for_the_rest(reader: Reader) -> None:
    for part in (METHOD[:3], METHOD[3:9]):
        reader.far.send(part)
        with pytest.raises(TimeoutError):
            reader.connection.read_frame(is_looking=True)
    reader.far.send(METHOD[9:])
    assert tuple(reader.connection.read_frame()) == (1, 1, METHOD[7:-1])


def test_a_frame_that_drips_does_not_outlast_the_deadline(reader: Reader, clock: Clock) -> None:
    def receive(size: int) -> bytes:
        clock.now += 1
        return b"\0"

    sock: Any = reader.transport.sock
    reader.transport.sock = type("Dripping", (), {"recv": staticmethod(receive), "settimeout": sock.settimeout})()
    with pytest.raises(TimeoutError, match="during the login"):
        reader.connection.read_frame()
    assert clock.now == 1005


def test_heartbeats_do_not_outlast_the_deadline(reader: Reader, clock: Clock) -> None:
    reader.far.send(HEARTBEAT * 20)
    for _ in range(5):
        reader.connection.read_frame()
        clock.now += 1
    with pytest.raises(TimeoutError):
        reader.connection.read_frame()


def test_a_peer_that_takes_nothing_does_not_outlast_the_deadline(reader: Reader, clock: Clock) -> None:
    class Slow:
        def settimeout(self, seconds: float) -> None:
            assert seconds <= 5

        def send(self, data: memoryview) -> int:
            clock.now += 1
            return 1

    reader.transport.sock = Slow()
    with pytest.raises(TimeoutError):
        reader.transport.write(bytes(100))
    assert clock.now == 1005


@pytest.mark.parametrize("method", [(60, 60), (60, 71), (60, 50)], ids=["deliver", "get-ok", "return"])
def test_a_message_that_was_not_asked_for_is_refused(reader: Reader, method: tuple[int, int]) -> None:
    # py-amqp would keep it, for any channel, in full.
    for frame in (pack(">BHIHHB", 1, 9, 4, *method, 0xCE), pack(">BHIB", 2, 9, 0, 0xCE), pack(">BHIB", 3, 9, 0, 0xCE)):
        reader.far.send(frame)
        with pytest.raises(ConnectionError, match="a message from the broker"):
            reader.connection.blocking_read()


def test_a_frame_can_be_read_in_pieces(reader: Reader) -> None:
    size = 2 * reader.connection.frame_max + 5
    data = pack(">BHI", 2, 1, size) + bytes(size) + b"\xce"
    sender = threading.Thread(target=lambda: reader.far.sendall(data + METHOD))
    sender.start()
    pieces = list(reader.connection.read_in_pieces())
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= reader.connection.frame_max
    assert b"".join(reader.connection.read_in_pieces()) == METHOD
    sender.join(10)


def test_the_header_of_a_message_may_be_over_the_limit(reader: Reader) -> None:
    reader.connection.takes_messages = True
    with pytest.raises(ConnectionError, match="a frame of 1048577 bytes"):
        reader.transport._read((1 << 20) + 1)
    reader.far.send(bytes(10))
    assert len(reader.transport._read(10)) == 10


def test_a_frame_over_the_limit_is_not_read(reader: Reader) -> None:
    reader.far.send(pack(">BHI", 1, 0, reader.connection.frame_max + 1))
    with pytest.raises(ConnectionError, match="a frame of 131073 bytes, more than 131072"):
        reader.connection.read_frame()


@pytest.mark.parametrize("frame_max", [-1, 1, 8, 4095])
def test_frames_below_the_least_are_refused(reader: Reader, frame_max: int) -> None:
    with pytest.raises(amqp.exceptions.FrameSyntaxError):
        reader.connection._on_tune(2047, frame_max, 60)


@pytest.mark.parametrize(("proposed", "agreed"), [(0, 131072), (4096, 4096), (1 << 30, 16 << 20)])
def test_the_size_of_frames_is_bounded(
    reader: Reader, proposed: int, agreed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(reader.connection, "send_method", lambda *args, **more: sent.append(args))
    reader.connection._on_tune(2047, proposed, 60)
    assert reader.connection.frame_max == agreed
    assert sent[0][2] == (2047, agreed, 0)


def test_a_forked_process_takes_no_lock_of_the_parent(reader: Reader) -> None:
    sock: socket.socket = reader.transport.sock
    with reader.deadline._lock:  # another thread had it at the fork
        reader.connection.close_in_child()
        assert sock.fileno() == -1
        reader.connection.collect()


def channels(reader: Reader) -> tuple[Any, Any]:
    """Return two channels, as if they were open; what they send is dropped."""
    connection = reader.connection
    connection.frame_writer = lambda *frame: None
    connection.on_inbound_frame = connection.frame_handler_cls(connection, connection.on_inbound_method)
    return tuple(py_amqp.AmqpChannel(reader.connection, number) for number in (1, 2))  # type: ignore[return-value]


def answer(channel: int, sig: tuple[int, int], arguments: bytes = b"") -> bytes:
    payload = pack(">HH", *sig) + arguments
    return pack(">BHI", 1, channel, len(payload)) + payload + b"\xce"


BIND_OK, DECLARE_OK = (50, 21), (50, 11)


def test_pipelined_methods_wait_for_their_answers_at_the_end(reader: Reader, clock: Clock) -> None:
    first, second = channels(reader)
    named: list[Any] = []
    with reader.connection.pipelined():
        first.expecting(named.append)
        first.queue_declare("")
        for channel in (first, first, second):
            channel.queue_bind("", "jsonrpc", "a.#")
        clock.now += 4
        reader.far.send(answer(1, DECLARE_OK, b"\x03gen" + pack(">II", 0, 0)))
        reader.far.send(answer(2, BIND_OK) + answer(1, BIND_OK) * 2)
        assert (named, first.unanswered, second.unanswered) == ([], 3, 1)
    assert (named, first.unanswered, second.unanswered) == ([("gen", 0, 0)], 0, 0)
    assert reader.deadline.by == clock.now + 5  # they were progress
    assert not reader.connection.waits_for_nothing


def test_only_answers_give_more_time(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _second = channels(reader)
    extended: list[int] = []
    monkeypatch.setattr(reader.deadline, "extend", lambda: extended.append(first.unanswered))
    with reader.connection.pipelined():
        for _ in range(2):
            first.queue_bind("", "jsonrpc", "a.#")
        unblocked = answer(0, (10, 61))
        reader.far.send(unblocked * 3 + answer(1, BIND_OK) + unblocked * 3 + answer(1, BIND_OK))
    assert extended == [1, 0]


def bind_pipelined(reader: Reader, channel: Any, times: int) -> None:
    with reader.connection.pipelined():
        for _ in range(times):
            channel.queue_bind("", "jsonrpc", "a.#")


def test_an_error_ends_what_is_pipelined(reader: Reader) -> None:
    first, _second = channels(reader)
    reader.far.send(answer(1, (20, 40), pack(">HB", 404, 2) + b"no" + pack(">HH", 50, 20)))
    with pytest.raises(amqp.exceptions.NotFound):
        bind_pipelined(reader, first, 2)


def test_an_answer_that_does_not_come_does_not_outlast_the_deadline(reader: Reader, clock: Clock) -> None:
    first, _second = channels(reader)
    reader.deadline.step = "the set-up"
    clock.now += 6
    with pytest.raises(TimeoutError, match="during the set-up"):
        bind_pipelined(reader, first, 1)


def test_answers_of_a_live_link_are_passed_on_in_order(reader: Reader) -> None:
    first, _second = channels(reader)
    reader.connection.live = True
    replies: list[Any] = []
    for number in range(3):
        first.expecting((lambda args, number=number: replies.append((number, args))) if number != 1 else None)
        first.queue_declare("q", passive=True)
    for number in range(3):
        reader.connection.handle(Frame(1, 1, answer(1, DECLARE_OK, b"\x01q" + pack(">II", number, 0))[7:-1]))
    assert replies == [(0, ("q", 0, 0)), (2, ("q", 2, 0))]
