"""Threads that call continuously, and the service that they call."""

from __future__ import annotations

import itertools
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jsonrpc_amqp import Client, RemoteError, Server, TransportError

from ..tools import wait_for

# The values that the bounds in docs/guarantees.md are given for.
DEADLINE = 5.0
HEARTBEAT = 2.0
# A busy machine may exceed a deadline by this much.
SLACK = 0.5
# So that calls that fail at once do not keep the machine busy.
PAUSE_AFTER_ERROR = 0.02


class Service:
    """The methods: ``double`` a number, ``note`` a number, ``nap`` for some seconds, or until ``wake`` is set."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.handled: set[int] = set()
        self.begun = threading.Semaphore(0)
        self.methods: dict[str, Callable[..., Any]] = {"double": self.double, "note": self.note, "nap": self.nap}

    @staticmethod
    def double(number: int) -> int:
        return 2 * number

    def note(self, number: int) -> None:
        self.handled.add(number)

    def nap(self, seconds: float, value: Any = None) -> Any:
        self.begun.release()
        self.wake.wait(seconds)
        return value

    def server(self, url: str, service: str, **options: Any) -> Server:
        """Return a server for these methods."""
        return Server(url, service, methods=self.methods, **{"heartbeat": HEARTBEAT, **options})


def make_client(url: str, service: str, **options: Any) -> Client:
    """Return a client with the deadline and heartbeat of the promised bounds."""
    return Client(url, service, **{"timeout": DEADLINE, "heartbeat": HEARTBEAT, **options})


class Traffic:
    """
    Calls from several threads during a ``with`` block, and confirmed notifications from one more for each client.

    Args:
        clients: Shared by all threads.
        threads: The number of threads that call.
        pause: Seconds between the calls of one thread.
        notify: Send notifications, too.
        numbers: The numbers for calls and notifications; from 0 by default.
        options: The options of each call.

    Attributes:
        results: When each correct result arrived, in monotonic seconds.
        errors: The number of typed errors, by class.
        failed_at: When each error was raised.
        confirmed: The numbers of the notifications that the broker has confirmed.
        not_run: The numbers of those that cannot have run, according to the error.
        wrong: Results of other calls, and errors that are not the library's.
        late: How many seconds after its deadline each late call ended.
        hung: The number of threads that did not end.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        *,
        threads: int = 4,
        pause: float = 0.005,
        notify: bool = False,
        numbers: Iterator[int] | None = None,
        deadline: float = DEADLINE,
        **options: Any,
    ) -> None:
        self.clients = clients
        self._pause = pause
        self._deadline = deadline
        self._options = options
        self._numbers = numbers or itertools.count()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.in_flight = 0
        self.results: list[float] = []
        self.errors: Counter[str] = Counter()
        self.failed_at: list[float] = []
        self.confirmed: set[int] = set()
        self.not_run: set[int] = set()
        self.confirmed_at: list[float] = []
        self.wrong: list[str] = []
        self.late: list[float] = []
        self.hung = 0
        callers = [(self._call, clients[number % len(clients)]) for number in range(threads)]
        notifiers = [(self._notify, client) for client in clients] if notify else []
        self._threads = [
            threading.Thread(target=self._run, args=each, name="caller", daemon=True) for each in callers + notifiers
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        give_up = time.monotonic() + self._deadline + 5
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))
        self.hung = sum(thread.is_alive() for thread in self._threads)

    def first_result_after(self, moment: float, seconds: float = 30.0) -> float:
        """Wait for a result after a moment, and return how many seconds after it that was."""
        return self._first_after(self.results, moment, seconds)

    def first_confirm_after(self, moment: float, seconds: float = 30.0) -> float:
        """Wait for a confirm after a moment, and return how many seconds after it that was."""
        return self._first_after(self.confirmed_at, moment, seconds)

    def wait_for_flow(self) -> None:
        """Wait for some results in a row."""
        for _ in range(3):
            self.first_result_after(time.monotonic())

    def wait_for_error(self, kind: str, before: int, seconds: float) -> None:
        """Wait until there are more errors of a class than before."""
        wait_for(lambda: self.errors[kind] > before, seconds, told=lambda: f"errors: {dict(self.errors)}")

    @staticmethod
    def _first_after(times: list[float], moment: float, seconds: float) -> float:
        give_up = time.monotonic() + seconds
        while not times or times[-1] < moment:
            assert time.monotonic() < give_up, f"no call succeeded in {seconds:g} s"
            time.sleep(0.005)
        # Threads append a moment after the result, so that the list may not be quite in order.
        start = max(0, bisect_left(times, moment) - 50)
        return min(each for each in times[start:] if each >= moment) - moment

    def _run(self, attempt: Callable[[Client, int], None], client: Client) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            failed = self._once(attempt, client)
            over = time.monotonic() - began - self._deadline
            if over > SLACK:
                self.late.append(over)
            self._stop.wait(PAUSE_AFTER_ERROR if failed else self._pause)

    def _once(self, attempt: Callable[[Client, int], None], client: Client) -> bool:
        with self._lock:
            self.in_flight += 1
        try:
            attempt(client, next(self._numbers))
        except (TransportError, RemoteError) as error:
            with self._lock:
                self.errors[type(error).__name__] += 1
            self.failed_at.append(time.monotonic())
            return True
        except BaseException as error:
            self.wrong.append(repr(error))
            return True
        finally:
            with self._lock:
                self.in_flight -= 1
        return False

    def _call(self, client: Client, number: int) -> None:
        result = client.call("double", [number], **self._options)
        if result == 2 * number:
            self.results.append(time.monotonic())
        else:
            self.wrong.append(f"{result!r} for {number}")

    def _notify(self, client: Client, number: int) -> None:
        try:
            client.notify("note", [number], **self._options)
        except TransportError as error:
            if not error.may_have_run:
                self.not_run.add(number)
            raise
        self.confirmed.add(number)
        self.confirmed_at.append(time.monotonic())
