"""``jsonrpc-amqp call`` and ``notify`` without a broker."""

from __future__ import annotations

import time

import pytest

from jsonrpc_amqp import Server
from jsonrpc_amqp.cli import USAGE_ERROR
from jsonrpc_amqp.cli.call import read_params
from jsonrpc_amqp.cli.common import WrongUsage

from ...cli_tools import SECRET, one_line
from .conftest import Invoke


@pytest.mark.parametrize("command", ["call", "notify"])
def test_no_broker(invoke: Invoke, nowhere: str, command: str) -> None:
    began = time.monotonic()
    done = invoke(command, "time.now", "--service", "example", "--timeout", "20", url=nowhere)
    assert time.monotonic() - began < 10
    assert done.returncode == 3
    assert one_line(done.stderr)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["[1, 2"], "line 1 column 6"),
        (["[1,\n nope]"], "line 2 column 2"),
        (["[NaN]"], "NaN"),
        (["5"], "array or object"),
        (["[" * 100_000], "nested"),
        (['["\\ud800"]'], "surrogate"),
        (["--service", "a..b"], "service"),
        (["--service", "a.request"], "request"),
        (["--url", f"http://u:{SECRET}@h"], "amqp://"),
        (["--url", f"amqp://u:{SECRET}/x@h:port"], "URL"),
    ],
)
def test_wrong_usage_is_one_line(invoke: Invoke, args: list[str], says: str) -> None:
    done = invoke("call", "echo", "--service", "s", *args)
    assert (done.returncode, done.stdout) == (USAGE_ERROR, "")
    assert says in one_line(done.stderr)


def test_bad_json_on_standard_input(invoke: Invoke) -> None:
    done = invoke("call", "echo", "-", "--service", "s", stdin=b'["\xff"]')
    assert done.returncode == 2
    assert "position 2" in one_line(done.stderr)


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "1e10"])
def test_a_timeout_is_a_time(invoke: Invoke, timeout: str) -> None:
    done = invoke("call", "echo", "--service", "s", "--timeout", timeout)
    assert done.returncode == 2
    assert "range" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of --service and --queue"),
        (["--queue", "q", "--service", "s"], "one of --service and --queue"),
        (["--queue", "q", "--exchange", "x"], "drop --exchange"),
        (["--queue", "q", "--dialect", "recipe2011"], "over the exchange only"),
    ],
)
def test_call_options_that_contradict_each_other(invoke: Invoke, words: list[str], message: str) -> None:
    done = invoke("call", "echo", *words)
    assert done.returncode == 2
    assert message in one_line(done.stderr)


@pytest.mark.parametrize(("text", "value"), [(None, None), ("[1, 2]", [1, 2]), ('{"a": "é"}', {"a": "é"})])
def test_params(text: str | None, value: object) -> None:
    assert read_params(text) == value


@pytest.mark.parametrize("text", ["5", "null", "[NaN]", "[Infinity]", "[" * 100_000, ""])
def test_params_that_are_no_array_or_object(text: str) -> None:
    with pytest.raises(WrongUsage, match="PARAMS"):
        read_params(text)


@pytest.mark.parametrize(
    ("policy", "says"), [("fail", "The call was not sent"), ("wait", "no server consumes from it now")]
)
def test_a_service_without_a_server(invoke: Invoke, policy: str, says: str) -> None:
    url = f"memory://no-server-{policy}"
    with Server(url, "s"):
        pass
    done = invoke("call", "echo", "--service", "s", "--timeout", "0.5", "--no-consumers", policy, url=url)
    assert done.returncode == 3
    assert says in one_line(done.stderr)
