"""What becomes of a request's message."""

from __future__ import annotations

from .fakes import FakeSession, job


def test_it_is_acknowledged_once() -> None:
    session = FakeSession()
    request = job(session)
    request.settle()
    request.settle()
    assert session.calls == [("ack", 1)]


def test_an_early_acknowledgement_is_written_at_once() -> None:
    session = FakeSession()
    request = job(session)
    request.acknowledge()
    request.settle()
    assert session.calls == [("ack", 1), ("flush",)]


def test_a_dead_letter_is_rejected() -> None:
    session = FakeSession()
    request = job(session)
    request.dead_letter()
    request.settle()
    assert session.calls == [("reject", 1)]


def test_what_was_forbidden_to_be_a_dead_letter_is_none() -> None:
    for order in (["dead_letter", "forbid_dead_letter"], ["forbid_dead_letter", "dead_letter"]):
        session = FakeSession()
        request = job(session)
        for verb in order:
            getattr(request, verb)()
        request.settle()
        assert session.calls == [("ack", 1)]


def test_what_is_given_back_is_requeued_at_once_and_settled() -> None:
    session = FakeSession()
    request = job(session)
    request.give_back()
    request.give_back()
    request.settle()
    assert session.calls == [("requeue", 1), ("flush",)]


def test_a_body_that_was_too_large_to_keep_is_empty() -> None:
    assert job(body=None).body == b""
