"""A client's life: one process, connecting, giving up, closing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from jsonrpc_amqp.client import lifecycle
from jsonrpc_amqp.client.lifecycle import Lifecycle
from jsonrpc_amqp.errors import AccessRefused, ClientClosed, NotConnected

from .fakes import SERVICE, FakeSession, Rig, call


@pytest.fixture
def lock() -> threading.RLock:
    return threading.RLock()


@pytest.fixture
def life(lock: threading.RLock) -> Lifecycle:
    return Lifecycle(lock)


def fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process a forked one, as far as clients know."""
    monkeypatch.setattr(lifecycle, "_process", os.getpid() + 1)


# -- processes ------------------------------------------------------------------------------------------------------


def test_client_that_was_only_made_before_a_fork_serves_the_child(
    life: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork(monkeypatch)
    assert not life.is_foreign()
    life.check_process()
    life.check_process()


def test_client_that_was_used_before_a_fork_does_not(life: Lifecycle, monkeypatch: pytest.MonkeyPatch) -> None:
    life.check_process()
    fork(monkeypatch)
    assert life.is_foreign()
    with pytest.raises(ClientClosed, match=f"^this client belongs to process {os.getpid()}, which forked this one: "):
        life.check_process()


def test_process_is_known_after_a_fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(lifecycle._process != os.getpid())
    assert os.waitpid(child, 0)[1] == 0
    assert lifecycle._process == os.getpid()


@pytest.mark.parametrize("service", [SERVICE, "another"])
def test_forked_client_refuses_without_taking_the_lock(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another thread may have held it at the fork, so that it stays locked for ever.
    rig = Rig()
    pending = rig.submit()
    fork(monkeypatch)
    held, over, refused = threading.Event(), threading.Event(), list[type[Exception]]()

    def hold() -> None:
        with rig.requests._lock:
            held.set()
            over.wait(10)

    def use() -> None:
        uses: list[Callable[[], object]] = [
            lambda: rig.requests.submit(call(service)),
            lambda: rig.requests.use(service),
            lambda: rig.connect(0.0),
            lambda: rig.requests.waiter.forget(call()),
            lambda: bool(rig.requests.cancel(pending)),
            lambda: rig.requests.close(0.0),
        ]
        for function in uses:
            try:
                function()
            except ClientClosed as exc:
                refused.append(type(exc))

    holder, user = threading.Thread(target=hold), threading.Thread(target=use, daemon=True)
    holder.start()
    assert held.wait(10)
    user.start()
    user.join(2)
    is_stuck = user.is_alive()
    over.set()
    holder.join(10)
    user.join(10)
    assert not is_stuck
    assert len(refused) == (2 if service == SERVICE else 3)


# -- connecting -----------------------------------------------------------------------------------------------------


def test_there_is_nothing_to_wait_for_once_there_is_a_session(life: Lifecycle, lock: threading.RLock) -> None:
    with lock:
        life.opened(FakeSession())
    life.wait_for_session(0.0)


def test_attempt_that_failed_is_named_when_the_time_is_over(life: Lifecycle, lock: threading.RLock) -> None:
    with pytest.raises(NotConnected, match=r"^no connection to the broker within 0.01 s\. Nothing was sent$"):
        life.wait_for_session(0.01)
    with lock:
        life.failed(AccessRefused("no"), is_final=False)
    assert not life.gave_up
    with pytest.raises(NotConnected, match=r"the last attempt: no\. Nothing"):
        life.wait_for_session(0.0)


def test_final_failure_is_raised_as_a_copy(life: Lifecycle, lock: threading.RLock) -> None:
    error = AccessRefused("no")
    with lock:
        life.failed(error, is_final=True)
    for _ in range(2):
        with pytest.raises(AccessRefused, match=r"^no$") as caught:
            life.wait_for_session(None)
        assert caught.value is not error


def test_next_use_begins_anew(life: Lifecycle, lock: threading.RLock) -> None:
    with lock:
        life.failed(AccessRefused("no"), is_final=True)
        life.begin()
    assert (life.failure, life.gave_up) == (None, False)


def test_next_use_does_not_forget_why_there_is_no_connection_yet(life: Lifecycle, lock: threading.RLock) -> None:
    with lock:
        life.failed(AccessRefused("no"), is_final=False)
    life.begin()
    with pytest.raises(NotConnected, match=r"the last attempt: no\. Nothing"):
        life.wait_for_session(0.0)


def test_session_ends_the_failure_before_it(life: Lifecycle, lock: threading.RLock) -> None:
    session = FakeSession()
    with lock:
        life.failed(AccessRefused("no"), is_final=True)
        life.opened(session)
    assert (life.session, life.failure, life.gave_up) == (session, None, False)


@pytest.mark.parametrize("what", ["opened", "gave up", "closed"])
def test_thread_that_waits_is_woken(what: str, life: Lifecycle, lock: threading.RLock) -> None:
    ends: list[object] = []

    def wait() -> None:
        try:
            life.wait_for_session(20)
        except Exception as exc:
            ends.append(type(exc))
        else:
            ends.append("opened")

    thread = threading.Thread(target=wait)
    thread.start()
    with lock:
        if what == "opened":
            life.opened(FakeSession())
        elif what == "gave up":
            life.failed(AccessRefused("no"), is_final=True)
        else:
            life.close()
    thread.join(20)
    assert ends == [{"opened": "opened", "gave up": AccessRefused, "closed": ClientClosed}[what]]


# -- closing --------------------------------------------------------------------------------------------------------


def test_closed_client_is_not_used_again(life: Lifecycle, lock: threading.RLock) -> None:
    life.check_open()
    with lock:
        life.close()
    assert life.closed
    for use in (life.check_open, life.begin, lambda: life.wait_for_session(0.0)):
        with pytest.raises(ClientClosed, match=r"^the client is closed; make a new one$"):
            use()
