"""Threads and tasks that call continuously."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from jsonrpc_amqp import AsyncClient, Client, RemoteError, TransportError

from ..loop_client import Loop, LoopClient
from ..tools import wait_for
from .ends import DEADLINE, AnyClient, Target, kind_of

Pair: TypeAlias = tuple[str, str]
"""The kinds of a client and of the server that it calls."""

# A busy machine may exceed a deadline by this much.
SLACK = 0.5
# So that calls that fail at once do not keep the machine busy.
PAUSE_AFTER_ERROR = 0.02
# Seconds between two calls that are cancelled.
CANCEL_PAUSE = 0.05


class Traffic:
    """
    Calls during a ``with`` block, and confirmed notifications of one more caller for each client.

    A caller of a ``Client`` is a thread; one of an ``AsyncClient`` is a task on its event loop. Each caller calls all
    targets in turn.

    Args:
        clients: Shared by all callers.
        targets: What is called.
        threads: The number of threads that call.
        tasks: The number of tasks that call; twice as many as threads by default.
        pause: Seconds between the calls of one caller.
        notify: Send notifications, too.
        cancel: Call from one more task for each client on an event loop, and cancel these calls.
        numbers: The numbers for calls and notifications; from 0 by default.
        options: The options of each call.

    Attributes:
        results: When each correct result arrived, in monotonic seconds.
        outcomes: How calls and notifications ended: "results", "errors", "cancelled", "confirmed".
        errors: The number of typed errors, by class.
        failed_at: When each error was raised.
        confirmed: The notifications that the broker has confirmed, by number.
        not_run: The numbers of those that cannot have run, according to the error.
        wrong: Results of other calls, and errors that are not the library's.
        late: How many seconds after its deadline each late call ended.
        hung: The number of callers that did not end.
    """

    def __init__(
        self,
        clients: Sequence[AnyClient],
        targets: Sequence[Target],
        *,
        threads: int = 4,
        tasks: int | None = None,
        pause: float = 0.005,
        notify: bool = False,
        cancel: bool = True,
        numbers: Iterator[int] | None = None,
        deadline: float = DEADLINE,
        **options: Any,
    ) -> None:
        self._targets = targets
        self._pause = pause
        self._deadline = deadline
        self._options = options
        self._numbers = numbers or itertools.count()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        pairs = list(itertools.product(dict.fromkeys(map(kind_of, clients)), (target.kind for target in targets)))
        self.results: dict[Pair, list[float]] = {pair: [] for pair in pairs}
        self.confirmed_at: dict[Pair, list[float]] = {pair: [] for pair in pairs if notify}
        self.outcomes: dict[Pair, Counter[str]] = {pair: Counter() for pair in pairs}
        self.errors: Counter[str] = Counter()
        self.failed_at: list[float] = []
        self.confirmed: dict[int, Pair] = {}
        self.not_run: set[int] = set()
        self.wrong: list[str] = []
        self.late: list[float] = []
        self.hung = 0
        on_threads = [client for client in clients if isinstance(client, Client)]
        on_loop = [client for client in clients if isinstance(client, LoopClient)]
        callers = [(self._call, each, start) for each, start in _spread(on_threads, threads)]
        callers += [(self._notify, client, 0) for client in on_threads if notify]
        self._threads = [threading.Thread(target=self._run, args=each, name="caller", daemon=True) for each in callers]
        self._begin = [
            (self._call_on_loop, each, start)
            for each, start in _spread(on_loop, 2 * threads if tasks is None else tasks)
        ]
        self._begin += [(self._notify_on_loop, client, 0) for client in on_loop if notify]
        self._begin += [(self._cancel, client, 0) for client in on_loop if cancel]
        self._tasks: list[asyncio.Task[None]] = []

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        if self._begin:
            Loop.shared().do(self._start_tasks)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        give_up = time.monotonic() + self._deadline + 5
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))
        while any(not task.done() for task in self._tasks) and time.monotonic() < give_up:
            time.sleep(0.005)
        hung = [task for task in self._tasks if not task.done()]
        self.hung = sum(thread.is_alive() for thread in self._threads) + len(hung)
        for task in hung:
            Loop.shared().do(task.cancel)
        self.wrong += [repr(task.exception()) for task in self._tasks if task not in hung and task.exception()]

    def count(self, outcome: str) -> int:
        """Return how many calls or notifications ended so, of all pairs."""
        return sum(outcomes[outcome] for outcomes in self.outcomes.values())

    def first_result_after(self, moment: float, seconds: float = 30.0) -> float:
        """Wait for a result of each pair after a moment, and return how many seconds after it the last of them was."""
        return self._first_after(self.results, moment, seconds)

    def first_confirm_after(self, moment: float, seconds: float = 30.0) -> float:
        """Wait for a confirm of each pair after a moment, and return when the last of them was, likewise."""
        return self._first_after(self.confirmed_at, moment, seconds)

    def wait_for_flow(self) -> None:
        """Wait for some results in a row."""
        for _ in range(3):
            self.first_result_after(time.monotonic())

    def wait_for_error(self, kind: str, before: int, seconds: float) -> None:
        """Wait until there are more errors of a class than before."""
        wait_for(lambda: self.errors[kind] > before, seconds, told=lambda: f"errors: {dict(self.errors)}")

    @staticmethod
    def _first_after(times_of: dict[Pair, list[float]], moment: float, seconds: float) -> float:
        give_up, first = time.monotonic() + seconds, []
        for pair, times in times_of.items():
            while not times or times[-1] < moment:
                assert time.monotonic() < give_up, f"no call of {pair} succeeded in {seconds:g} s"
                time.sleep(0.005)
            # Threads append a moment after the result, so that the list may not be quite in order.
            start = max(0, bisect_left(times, moment) - 50)
            first.append(min(each for each in times[start:] if each >= moment) - moment)
        return max(first)

    # -- on threads -----------------------------------------------------------------------------------------

    def _run(self, attempt: Callable[[Client, Target, int], None], client: Client, start: int) -> None:
        for target in self._in_turn(start):
            with self._timed(client, target) as failed:
                attempt(client, target, next(self._numbers))
            self._stop.wait(PAUSE_AFTER_ERROR if failed else self._pause)

    def _call(self, client: Client, target: Target, number: int) -> None:
        result = client.call(f"{target.prefix}double", [number], service=target.service, **self._options)
        self._take(client, target, number, result)

    def _notify(self, client: Client, target: Target, number: int) -> None:
        with self._noted(client, target, number):
            client.notify(f"{target.prefix}note", [number], service=target.service, **self._options)

    # -- on the event loop ----------------------------------------------------------------------------------

    def _start_tasks(self) -> None:
        self._tasks = [asyncio.create_task(self._run_on_loop(*each)) for each in self._begin]

    async def _run_on_loop(
        self, attempt: Callable[[LoopClient, Target, int], Awaitable[None]], client: LoopClient, start: int
    ) -> None:
        pause = CANCEL_PAUSE if attempt == self._cancel else self._pause
        for target in self._in_turn(start):
            with self._timed(client, target) as failed:
                await attempt(client, target, next(self._numbers))
            await asyncio.sleep(PAUSE_AFTER_ERROR if failed else pause)

    async def _call_on_loop(self, client: LoopClient, target: Target, number: int) -> None:
        result = await client.client.call(f"{target.prefix}double", [number], service=target.service, **self._options)
        self._take(client, target, number, result)

    async def _notify_on_loop(self, client: LoopClient, target: Target, number: int) -> None:
        with self._noted(client, target, number):
            await client.client.notify(f"{target.prefix}note", [number], service=target.service, **self._options)

    async def _cancel(self, client: LoopClient, target: Target, number: int) -> None:
        """Call, and cancel that after 0 to 9 ms; it may have ended before."""
        ways = (_cancel_task, _cancel_by_timeout, _cancel_future)
        call = {"method": f"{target.prefix}double", "params": [number], "service": target.service, **self._options}
        result = await ways[number % len(ways)](client.client, call, number % 10 / 1000)
        if result is None:
            self.outcomes[kind_of(client), target.kind]["cancelled"] += 1
        else:
            self._take(client, target, number, result)

    # -- how they end ---------------------------------------------------------------------------------------

    def _in_turn(self, start: int) -> Iterator[Target]:
        for target in itertools.islice(itertools.cycle(self._targets), start % len(self._targets), None):
            if self._stop.is_set():
                return
            yield target

    @contextmanager
    def _timed(self, client: AnyClient, target: Target) -> Iterator[list[BaseException]]:
        began, failed = time.monotonic(), list[BaseException]()
        try:
            yield failed
        except (TransportError, RemoteError) as error:
            with self._lock:
                self.errors[type(error).__name__] += 1
                self.outcomes[kind_of(client), target.kind]["errors"] += 1
            self.failed_at.append(time.monotonic())
            failed.append(error)
        except BaseException as error:
            self.wrong.append(repr(error))
            failed.append(error)
        over = time.monotonic() - began - self._deadline
        if over > SLACK:
            self.late.append(over)

    def _take(self, client: AnyClient, target: Target, number: int, result: object) -> None:
        pair = kind_of(client), target.kind
        if result != 2 * number:
            self.wrong.append(f"{result!r} for {number} from {pair}")
            return
        self.results[pair].append(time.monotonic())
        with self._lock:
            self.outcomes[pair]["results"] += 1

    @contextmanager
    def _noted(self, client: AnyClient, target: Target, number: int) -> Iterator[None]:
        pair = kind_of(client), target.kind
        try:
            yield
        except TransportError as error:
            if not error.may_have_run:
                self.not_run.add(number)
            raise
        self.confirmed[number] = pair
        self.confirmed_at[pair].append(time.monotonic())
        with self._lock:
            self.outcomes[pair]["confirmed"] += 1


async def _cancel_task(client: AsyncClient, call: dict[str, Any], seconds: float) -> Any:
    task = asyncio.create_task(client.call(**call))
    await asyncio.sleep(seconds)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return None


async def _cancel_by_timeout(client: AsyncClient, call: dict[str, Any], seconds: float) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await client.call(**call)
    except TransportError:  # may be a TimeoutError, too
        raise
    except TimeoutError:
        return None


async def _cancel_future(client: AsyncClient, call: dict[str, Any], seconds: float) -> Any:
    future = client.submit(**call)
    await asyncio.sleep(seconds)
    if future.cancel():
        assert future.cancelled()
        return None
    return await future


def _spread(clients: Sequence[Any], count: int) -> list[tuple[Any, int]]:
    """Return the client of each caller, and the target that it begins with, so that each client has all of both."""
    return [(clients[number % len(clients)], number // len(clients)) for number in range(count if clients else 0)]
