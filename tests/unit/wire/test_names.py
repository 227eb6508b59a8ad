"""Names on the wire: tables first, then what holds for any input."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jsonrpc_amqp.errors import InvalidName
from jsonrpc_amqp.wire.names import check_service, client_word, new_token, qid_of, request_binding, request_queue

from ...vectors import cases
from .tools import JSON_VALUES, PLAIN_WORD, SERVICES, TOKEN, is_legal


@cases("keys.json", "service")
def test_service_names(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    service = inputs["service"]
    if "error" in expected:
        with pytest.raises(InvalidName) as caught:
            check_service(service)
        assert expected["error"] in str(caught.value)
        return
    assert check_service(service) == service
    assert request_queue(service) == expected["request_queue"]
    assert request_binding(service) == expected["request_binding"]


@pytest.mark.parametrize("name", [None, 5, b"bytes", ["a"]])
def test_service_name_of_another_type(name: Any) -> None:
    with pytest.raises(InvalidName, match="string"):
        check_service(name)


@given(st.text(max_size=90) | SERVICES)
@example("a.request")
@example("amq.x")
def test_exactly_the_legal_service_names_are_taken(name: str) -> None:
    words = name.split(".")
    well_formed = all(re.fullmatch(r"[A-Za-z0-9_-]+", word) for word in words)
    if well_formed and is_legal(name):
        assert check_service(name) == name
        return
    with pytest.raises(InvalidName) as caught:
        check_service(name)
    assert str(caught.value).isascii(), "names from elsewhere are escaped"


@cases("keys.json", "client")
def test_client_words(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    if "error" in expected:
        with pytest.raises(InvalidName, match=expected["error"]):
            client_word(inputs["user"], inputs["token"])
    else:
        assert client_word(inputs["user"], inputs["token"]) == expected["client"]


def test_user_without_a_form_in_utf8_is_refused() -> None:
    with pytest.raises(InvalidName, match="UTF-8"):
        client_word("\ud800", TOKEN)


@given(st.text(min_size=1))
@example("request")
@example("%")
def test_any_user_makes_one_word_that_decodes_back(user: str) -> None:
    try:
        word = client_word(user, TOKEN)
    except InvalidName:
        # Each byte takes one character, or three.
        assert 3 * len(user.encode()) > 64
        return
    encoded, hyphen, token = word.rpartition("-")
    assert (hyphen, token) == ("-", TOKEN)
    assert PLAIN_WORD.fullmatch(word)
    assert unquote(encoded) == user


def test_new_tokens() -> None:
    tokens = [new_token() for _ in range(100)]
    assert all(re.fullmatch("[a-z0-9]{12}", token) for token in tokens)
    assert len(set(tokens)) == len(tokens)


@cases("keys.json", "qid")
def test_qids(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    assert qid_of(json.loads(inputs["id_json"])) == expected["qid"]


def test_qid_of_an_integer_that_python_refuses_to_write() -> None:
    assert qid_of(1 << 100_000) == "_"


@given(JSON_VALUES)
def test_any_id_makes_one_plain_word(request_id: Any) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", qid_of(request_id))


@given(st.integers(-(10**66), 10**66) | st.from_regex(r"[A-Za-z0-9_-]{1,70}", fullmatch=True))
def test_plain_ids_are_their_own_qids(request_id: int | str) -> None:
    assert qid_of(request_id) == (str(request_id) if len(str(request_id)) <= 64 else "_")
