"""Requests and batches -> bytes, and what is believed of the bytes that come back."""

from __future__ import annotations

import json
import re
import time
import tracemalloc
from array import array
from collections import ChainMap, OrderedDict, UserDict, UserList, UserString, deque, namedtuple
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jsonrpc_amqp.errors import (
    EncodeError,
    MalformedReply,
    RemoteError,
)
from jsonrpc_amqp.jsonrpc import messages
from jsonrpc_amqp.jsonrpc.messages import Error, Ok
from jsonrpc_amqp.wire.names import qid_of

from ...error_codes import CLASSES_BY_CODE
from ...vectors import cases

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
# Nearly responses: each member there or not, and right or not.
RESPONSES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON_VALUES,
        "id": st.sampled_from([1, 1.0, "1", True, None]) | JSON_VALUES,
        "result": JSON_VALUES,
        "error": st.fixed_dictionaries(
            {},
            optional={"code": st.integers() | JSON_VALUES, "message": st.text() | JSON_VALUES, "data": JSON_VALUES},
        )
        | JSON_VALUES,
    },
)
Pair = namedtuple("Pair", "a b")
IDS = st.none() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)


def body_of(inputs: dict[str, Any]) -> bytes:
    return bytes.fromhex(inputs["body_hex"]) if "body_hex" in inputs else inputs["body"].encode()


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


# -- out --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ([1, "a"], [1, "a"]),
        ((1, "a"), [1, "a"]),
        ({"a": 1}, {"a": 1}),
        ([None], [None]),
        ([[]], [[]]),
    ],
)
def test_request_with_params(params: Any, sent: Any) -> None:
    assert json.loads(messages.request("m", params, 7)) == {"jsonrpc": "2.0", "method": "m", "params": sent, "id": 7}
    assert json.loads(messages.notification("m", params)) == {"jsonrpc": "2.0", "method": "m", "params": sent}


@pytest.mark.parametrize("params", [None, [], (), {}])
def test_request_without_params(params: Any) -> None:
    assert json.loads(messages.request("m", params, "q")) == {"jsonrpc": "2.0", "method": "m", "id": "q"}
    assert json.loads(messages.notification("m", params)) == {"jsonrpc": "2.0", "method": "m"}


@pytest.mark.parametrize("request_id", [0, -5, 2**64, 1.5, "", "a.b", None])
def test_id_is_sent_as_it_is(request_id: Any) -> None:
    sent = json.loads(messages.request("m", None, request_id))["id"]
    assert (sent, type(sent)) == (request_id, type(request_id))


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        (range(3), [0, 1, 2]),
        (deque([1, 2]), [1, 2]),
        (UserList([1, [2]]), [1, [2]]),
        (array("i", [1]), [1]),
        (Pair(1, 2), [1, 2]),
        (UserDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (ChainMap({"a": 1}, {"a": 2, "b": 3}), {"a": 1, "b": 3}),
        (OrderedDict(a=1), {"a": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_params_are_any_sequence_or_mapping(params: Any, sent: Any) -> None:
    assert json.loads(messages.request("m", params, 7))["params"] == sent
    assert json.loads(messages.notification("m", params))["params"] == sent
    assert messages.request_object("m", params, 7)["params"] == sent


@pytest.mark.parametrize("params", [range(0), deque(), UserDict(), MappingProxyType({})])
def test_empty_sequences_and_mappings_are_no_params(params: Any) -> None:
    assert "params" not in json.loads(messages.request("m", params, 7))


@pytest.mark.parametrize("params", ["ab", b"ab", bytearray(b"ab"), memoryview(b"ab"), UserString("ab"), ""])
def test_a_text_is_no_sequence_of_params(params: Any) -> None:
    message = rf"not {type(params).__name__}; put a single value in a list"
    for make in (messages.notification, messages.notification_object):
        with pytest.raises(TypeError, match=message):
            make("m", params)
    with pytest.raises(TypeError, match=message):
        messages.request("m", params, 1)


@pytest.mark.parametrize("params", [1, 1.5, True, {1, 2}, iter([1]), {}.keys(), object()])
def test_other_params_are_refused_and_told_what_is_allowed(params: Any) -> None:
    makers: list[Callable[[], bytes]] = [
        lambda: messages.request("m", params, 1),
        lambda: messages.notification("m", params),
    ]
    for make in makers:
        with pytest.raises(TypeError, match=rf"a list or .* a dict or .* None, not {type(params).__name__}"):
            make()


@pytest.mark.parametrize("method", ["", None, 1, b"m", ["m"]])
def test_method_is_a_string_with_something_in_it(method: Any) -> None:
    makers: list[Callable[[], bytes]] = [
        lambda: messages.request(method, None, 1),
        lambda: messages.notification(method, None),
    ]
    for make in makers:
        with pytest.raises(TypeError, match="non-empty string"):
            make()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), "\ud800"])
def test_params_without_a_form_in_json_are_refused(value: Any) -> None:
    makers: list[Callable[[], bytes]] = [
        lambda: messages.request("m", [value], 1),
        lambda: messages.notification("m", {"a": value}),
        lambda: messages.encode([messages.request_object("m", [value], 1)]),
    ]
    for make in makers:
        with pytest.raises(EncodeError):
            make()


def test_batch_is_the_array_of_its_members() -> None:
    members = [messages.request_object("m", [1], 1), messages.notification_object("n", None)]
    assert json.loads(messages.encode(members)) == [
        {"jsonrpc": "2.0", "method": "m", "params": [1], "id": 1},
        {"jsonrpc": "2.0", "method": "n"},
    ]


@cases("requests.json", "kind")
def test_kinds(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    kind = messages.classify(body_of(inputs))
    assert kind.is_notification == (expected["kind"] == "notification")
    if expected["qid"] is not None:
        assert qid_of(kind.id) == expected["qid"]


@given(st.binary(max_size=60) | JSON_VALUES.map(text))
def test_any_bytes_have_a_kind(body: bytes) -> None:
    kind = messages.classify(body)
    if kind.is_notification:
        value = json.loads(body)
        members = value if isinstance(value, list) else [value]
        assert members
        assert all("id" not in member for member in members)


@given(st.text(min_size=1), st.none() | st.lists(JSON_VALUES, max_size=3), IDS)
def test_kinds_of_what_is_made_here(method: str, params: Any, request_id: Any) -> None:
    assert messages.classify(messages.notification(method, params)).is_notification
    kind = messages.classify(messages.request(method, params, request_id))
    assert not kind.is_notification
    assert kind.id == request_id


# -- in ---------------------------------------------------------------------------------------------------------


@cases("answers.json", "response")
def test_responses(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    body, sent = body_of(inputs), json.loads(inputs["id_json"])
    if "malformed" in expected:
        for read in (messages.parse_response, messages.result_of):
            with pytest.raises(MalformedReply) as caught:
                read(body, sent)
            assert expected["malformed"] in str(caught.value)
            assert caught.value.may_have_run
    elif "result" in expected:
        assert messages.result_of(body, sent) == expected["result"]
        assert messages.parse_response(body, sent) == Ok(expected["result"], sent)
    else:
        response = messages.parse_response(body, sent)
        assert as_expected(response) == expected
        with pytest.raises(RemoteError) as raised:
            messages.result_of(body, sent)
        error = raised.value
        told = expected["error"]
        assert (error.code, error.message, error.data) == (told["code"], told["message"], told.get("data"))


def as_expected(answer: Ok | Error | MalformedReply) -> dict[str, Any]:
    """Give an answer as the vectors write it."""
    if isinstance(answer, MalformedReply):
        return {"malformed": str(answer)}
    if isinstance(answer, Ok):
        return {"result": answer.result}
    data = {} if answer.data is None else {"data": answer.data}
    return {"error": {"code": answer.code, "message": answer.message, **data}}


@pytest.mark.parametrize(("code", "kind"), CLASSES_BY_CODE)
def test_codes_have_exceptions(code: int, kind: type[RemoteError]) -> None:
    error = messages.to_exception(Error(code, "message", {"a": 1}, 1))
    assert type(error) is kind
    assert (error.code, error.message, error.data) == (code, "message", {"a": 1})
    assert error.is_reply
    assert not kind.is_reply


def test_messages_of_malformed_replies_are_short_and_harmless() -> None:
    hostile = "\x1b[31m" + "x" * 100_000
    for reply in (
        hostile,
        {"jsonrpc": hostile},
        {"jsonrpc": "2.0", "result": 1, "id": hostile},
        {"jsonrpc": "2.0", "error": {"code": hostile, "message": "m"}, "id": 1},
        {"jsonrpc": "2.0", "error": {"code": 1, "message": [hostile]}, "id": 1},
        {"jsonrpc": "2.0", "error": [hostile], "id": 1},
    ):
        with pytest.raises(MalformedReply) as caught:
            messages.parse_response(text(reply), 1)
        assert len(str(caught.value)) < 300
        assert "\x1b" not in str(caught.value)


@given(RESPONSES.map(text) | JSON_VALUES.map(text) | st.binary(max_size=60))
@example(b'{"jsonrpc":"2.0","result":1,"id":[]}')
def test_any_reply_is_a_result_or_one_of_two_errors(body: bytes) -> None:
    try:
        result = messages.result_of(body, 1)
    except (MalformedReply, RemoteError):
        return
    reply = json.loads(body)
    assert reply["jsonrpc"] == "2.0"
    assert reply["id"] == 1
    assert reply["id"] is not True
    assert "error" not in reply
    assert result == reply["result"]


@given(IDS, JSON_VALUES)
def test_any_id_and_result_come_back(request_id: Any, result: Any) -> None:
    body = text({"jsonrpc": "2.0", "result": result, "id": request_id})
    assert messages.parse_response(body, request_id) == Ok(result, request_id)


# -- batches ----------------------------------------------------------------------------------------------------


@cases("batches.json", "answer")
def test_answers_to_batches(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    body, ids = body_of(inputs), inputs["ids"]
    if "malformed" in expected:
        with pytest.raises(MalformedReply, match=expected["malformed"]):
            messages.parse_batch(body, ids)
        return
    answers = messages.parse_batch(body, ids)
    for answer, request_id, told in zip(answers, ids, expected["answers"], strict=True):
        if "malformed" in told:
            assert isinstance(answer, MalformedReply)
            assert told["malformed"] in str(answer)
        else:
            assert as_expected(answer) == told
            assert not isinstance(answer, MalformedReply)
            assert (answer.id, type(answer.id)) == (request_id, type(request_id))


@given(st.lists(st.integers(-3, 3) | st.sampled_from(["1", "2", "x"]), unique_by=lambda id: (type(id), id)), st.data())
def test_members_are_matched_by_id_in_any_order(ids: list[Any], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(ids))
    body = text([{"jsonrpc": "2.0", "result": [id], "id": id} for id in shuffled])
    assert messages.parse_batch(body, ids) == [Ok([id], id) for id in ids]


def is_same_in_json(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


SIMILAR_IDS = st.lists(st.sampled_from([1, 1.0, "1", True, 0, -0.0, False, "", None, "null", 2**53 + 1, 2.0**53]))


@given(SIMILAR_IDS, SIMILAR_IDS)
@example([1, 1.0, "1"], [True, "1", 1.0, 1, 1])
@example([2**53 + 1], [2.0**53])
def test_members_are_matched_by_the_identity_that_ids_have_in_json(ids: list[Any], came: list[Any]) -> None:
    answers = messages.parse_batch(
        text([{"jsonrpc": "2.0", "result": place, "id": id} for place, id in enumerate(came)]), ids
    )
    left = list(enumerate(came))
    for id, answer in zip(ids, answers, strict=True):
        member = next((member for member in left if is_same_in_json(member[1], id)), None)
        if member is None:
            assert isinstance(answer, MalformedReply)
        else:
            left.remove(member)
            assert answer == Ok(member[0], id)
            assert type(answer.id) is type(id)


def responses(ids: Iterable[Any]) -> bytes:
    return text([{"jsonrpc": "2.0", "result": 0, "id": id} for id in ids])


def test_ids_that_collide_in_a_hash_table_take_no_quadratic_time() -> None:
    ids = [(2**61 - 1) * place for place in range(1, 20_001)]  # all of them have the hash 0
    body = responses(ids)
    before = time.process_time()
    assert all(isinstance(answer, Ok) for answer in messages.parse_batch(body, ids))
    assert time.process_time() - before < 4  # quadratic: half a minute


def test_numbers_are_no_keys_of_hash_tables() -> None:
    """Their hashes are not random, so a peer can choose ids that collide."""
    for ids in ([(2**61 - 1) * place for place in range(1, 101)], [2.0 ** (61 * place) for place in range(1, 16)]):
        assert len(set(map(hash, ids))) == 1
        assert len({hash(messages._id_key(id)) for id in ids}) > 1
    assert messages._id_key(2.0**61) == messages._id_key(2**61)


def test_ids_that_were_not_asked_for_are_not_kept() -> None:
    # Indexed, each takes most of a kilobyte.
    body = responses([*(f"x{place}" for place in range(1000)), 1])
    tracemalloc.start()
    try:
        value = json.loads(body)
        size = tracemalloc.get_traced_memory()[0]
        del value
        tracemalloc.reset_peak()
        assert messages.parse_batch(body, [1]) == [Ok(0, 1)]
        assert tracemalloc.get_traced_memory()[1] < 2 * size
    finally:
        tracemalloc.stop()


def test_a_reply_with_far_more_members_than_were_asked_for_is_malformed() -> None:
    assert messages.parse_batch(responses(range(1002)), [1, 5]) == [Ok(0, 1), Ok(0, 5)]
    with pytest.raises(MalformedReply, match="the answer is an array with more than 1002 members"):
        messages.parse_batch(responses(range(1003)), [1, 5])
    for read in (messages.parse_response, messages.result_of):
        with pytest.raises(MalformedReply, match="the answer is an array with more than 1000 members"):
            read(responses(range(1001)), 1)


@pytest.mark.parametrize(("sent", "came"), [(1, 1.0), (1.0, 1), (0, -0.0)])
def test_id_is_given_back_as_it_was_sent(sent: Any, came: Any) -> None:
    response = messages.parse_response(text({"jsonrpc": "2.0", "result": "x", "id": came}), sent)
    assert (response.id, type(response.id)) == (sent, type(sent))


def test_id_is_given_back_where_the_server_could_not_read_it() -> None:
    body = text({"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": None})
    assert messages.parse_response(body, "q538") == Error(-32700, "Parse error", None, "q538")


@given(st.lists(RESPONSES | JSON_VALUES, max_size=4).map(text) | RESPONSES.map(text) | st.binary(max_size=60))
def test_any_answer_to_a_batch_is_read_or_malformed(body: bytes) -> None:
    ids = [1, "1", None]
    try:
        answers = messages.parse_batch(body, ids)
    except MalformedReply:
        return
    assert len(answers) == len(ids)
    assert all(isinstance(answer, (Ok, Error, MalformedReply)) for answer in answers)


@given(method=st.text(min_size=1), params=st.none() | st.lists(JSON_VALUES) | st.dictionaries(st.text(), JSON_VALUES))
def test_the_short_way_writes_what_jsonrpcclient_makes(method: str, params: Any) -> None:
    try:
        expected = messages.encode(messages.request_object(method, params, 7))
    except EncodeError:
        with pytest.raises(EncodeError):
            messages.request(method, params, 7)
    else:
        assert messages.request(method, params, 7) == expected


@given(response=RESPONSES)
def test_the_short_way_believes_what_the_long_way_does(response: dict[str, Any]) -> None:
    body = json.dumps(response).encode()
    try:
        long_way = messages.parse_response(body, 1)
    except MalformedReply as error:
        with pytest.raises(MalformedReply, match=f"^{re.escape(str(error))}$"):
            messages.result_of(body, 1)
    else:
        if isinstance(long_way, Ok):
            assert messages.result_of(body, 1) == long_way.result
        else:
            with pytest.raises(RemoteError):
                messages.result_of(body, 1)


def test_a_reply_as_text() -> None:
    assert messages.text_of("ü".encode()) == "ü"
    assert messages.text_of(None) == ""
    with pytest.raises(MalformedReply, match="not UTF-8"):
        messages.text_of(b"\xff")


@pytest.mark.parametrize(
    ("id", "agrees"), [(1, True), (1.0, True), ("1", False), (True, False), (None, False), ([1], False)]
)
def test_a_response_is_checked_against_the_id_of_its_call(id: Any, agrees: bool) -> None:
    result = {"jsonrpc": "2.0", "result": 1, "id": id}
    error = {"jsonrpc": "2.0", "error": {"code": 1, "message": ""}, "id": id}
    for response, may_pass in ((result, agrees), (error, agrees or id is None)):
        if may_pass:
            assert messages.check_response(response, 1) is response
            assert response["id"] is id
        else:
            with pytest.raises(MalformedReply):
                messages.check_response(response, 1)
