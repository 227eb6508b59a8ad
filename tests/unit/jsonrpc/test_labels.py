"""Ids of our own in place of a caller's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jsonrpc_amqp.jsonrpc import inspection
from jsonrpc_amqp.jsonrpc.labels import BITS, Labelled, label, restore

START = 2**BITS - 1


def labelled(body: bytes) -> Labelled:
    return label(body, inspection.read(body), START)


def test_a_call_keeps_all_but_its_id() -> None:
    body = b' { "jsonrpc" : "2.0", "params" : [ 1e2, "\\u00e4", 10000000000000000000001, 1.10 ],"id":"x", "method":"m"}'
    sent = labelled(body)
    assert sent.body == (
        b'{"jsonrpc":"2.0","params":[ 1e2, "\\u00e4", 10000000000000000000001, 1.10 ],"id":"%d","method":"m"}' % START
    )
    assert sent.requested.ids == (str(START),)
    reply = b'{"id": "%d", "jsonrpc": "2.0", "result": { "a" : 1.10 } }' % START
    assert restore(sent, reply) == b'{"id":"x","jsonrpc":"2.0","result":{ "a" : 1.10 }}'


@pytest.mark.parametrize("id", ["1", "-7", "1.5", "0", '"a"', '"1"', '""', '"\\u0000\\ud83d\\ude00"', "9" * 400])
def test_ids(id: str) -> None:
    sent = labelled(f'{{"jsonrpc": "2.0", "method": "m", "id": {id}}}'.encode())
    [own] = sent.requested.ids
    assert isinstance(own, str) == id.startswith('"')
    assert json.loads(sent.body)["id"] == own
    assert restore(sent, json.dumps({"jsonrpc": "2.0", "result": 1, "id": own}).encode()) == (
        f'{{"jsonrpc":"2.0","result":1,"id":{id}}}'.encode()
    )


def test_a_server_that_returns_it_as_a_fraction() -> None:
    sent = labelled(b'{"jsonrpc": "2.0", "method": "m", "id": 1}')
    assert restore(sent, b'{"jsonrpc":"2.0","result":1,"id":%d.0}' % START) == b'{"jsonrpc":"2.0","result":1,"id":1}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc": "2.0", "method": "m"}',
        b'{"jsonrpc": "2.0", "method": "m", "id": null}',
        b'{"jsonrpc": "2.0", "method": "m", "id": true}',
        b'{"jsonrpc": "2.0", "method": "m", "id": [1]}',
        b'{"jsonrpc": "2.0", "method": 1}',
        b"[1, [], {}]",
        b"[]",
        b"7",
    ],
)
def test_what_has_no_usable_id_stays_as_it_is(body: bytes) -> None:
    sent = labelled(body)
    assert (sent.body, sent.requested, sent.originals) == (body, inspection.read(body), {})
    assert restore(sent, b' {"id": 1} ') == b' {"id": 1} '


def test_a_batch() -> None:
    call = {"jsonrpc": "2.0", "method": "m"}
    batch: list[Any] = [{**call, "id": 1}, call, {**call, "id": 1}, 5, {**call, "id": None}, {"id": "b"}]
    sent = labelled(json.dumps(batch).encode())
    own = [START, START + 1, None, None, str(START + 4)]
    assert sent.requested == (tuple(own), True, True)
    members = json.loads(sent.body)
    assert [each.get("id") for each in members if isinstance(each, dict)] == [START, None, START + 1, None, own[-1]]
    assert members[1] == call
    reply = json.dumps([{"jsonrpc": "2.0", "result": id, "id": id} for id in reversed(own)])
    assert [each["id"] for each in json.loads(restore(sent, reply.encode()))] == ["b", None, None, 1, 1]


def test_a_single_error_for_a_batch() -> None:
    sent = labelled(b'[{"jsonrpc": "2.0", "method": "m", "id": 1}]')
    error = b' {"jsonrpc": "2.0", "error": {"code": 1, "message": "m"}, "id": null}'
    assert restore(sent, error) == error.strip()


def test_white_space_around_it() -> None:
    space = b" \t\r\n" * 5000
    sent = labelled(space + b'{"jsonrpc": "2.0", "method": "m", "id": 7}' + space)
    assert json.loads(sent.body)["id"] == START
    assert restore(sent, space + b'{"id": %d}' % START + space) == b'{"id":7}'
    assert json.loads(restore(sent, space + b'[ {"id": %d} ]' % START)) == [{"id": 7}]


@settings(deadline=None)
@example([None, {"id": 0}])
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text('id"\\ü'),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "jsonrpc", "x"]), inner),
        max_leaves=20,
    )
)
def test_nothing_but_ids_changes(value: Any) -> None:
    body = json.dumps(value).encode()
    sent = labelled(body)
    assert json.loads(restore(sent, sent.body)) == value
    usable = [id for id in sent.requested.ids if id is not None]
    assert list(sent.originals) == usable


def test_members_that_occur_twice() -> None:
    """The last one counts, here and for the checks."""
    sent = labelled(b'{"id": 1, "jsonrpc": "2.0", "method": "m", "id": 2, "method": "n"}')
    assert sent.body == b'{"id":%d,"jsonrpc":"2.0","method":"n"}' % START
    assert restore(sent, b'{"id": %d}' % START) == b'{"id":2}'
