"""The output of ``jsonrpc-amqp permissions``: names are literal, escaped, and quoted for a shell."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from jsonrpc_amqp import NO_ANSWER, NOT_DELIVERED, AccessRefused, Client, InvalidName, Server
from jsonrpc_amqp.operator.permissions import permissions

from ..bridged import always, anonymous
from ..command import run, serving
from ..http_tools import JSON, RawServer, bridge, gateway, ok, request
from .node import ALICE, CERTIFIED, CLIENTS, DOTTED, SERVER, SERVICE, TOPIC, Node, lines_for

TOKEN = "0123456789ab"


def patterns(**options: Any) -> dict[tuple[str, str], list[str]]:
    """Return the patterns of each printed command, by command and user."""
    names = {"server_user": "srv", "client_user": "alice", **options}
    found = {}
    for line in permissions("calc", **names)[1:]:
        program, command, _p, vhost, dashes, user, *rest, redirection = shlex.split(line)
        assert redirection == "</dev/null"
        assert (program, dashes, vhost) == ("rabbitmqctl", "--", names.get("vhost", "/"))
        if command == "set_topic_permissions":
            assert rest.pop(0) == names.get("exchange", "jsonrpc")
        found[command, user] = rest
    return found


@pytest.mark.parametrize(
    ("user", "encoded", "others"),
    [
        ("alice", "alice", ["alic", "alicex", "bob", "alice-bob"]),
        ("a.b", "a%2Eb", ["axb", "a.b", "a%2Exb"]),
        ("a+b", "a%2Bb", ["aab", "a+b"]),
        ("$(reboot)", "%24%28reboot%29", ["reboot"]),
        ("it's", "it%27s", ["its"]),
        ("CN=a b,O=x", "CN%3Da%20b%2CO%3Dx", ["CN=a b,O=x"]),
        ("-x", "-x", ["x"]),
        ("Jürgen", "J%C3%BCrgen", ["Jurgen"]),
    ],
)
def test_keys_name_one_user_only(user: str, encoded: str, others: list[str]) -> None:
    found = patterns(client_user=user)
    writes, reads = found["set_topic_permissions", user]
    for tail in ("", ".7", "._"):
        assert re.fullmatch(writes, f"calc.request.{encoded}-{TOKEN}{tail}")
    assert re.fullmatch(reads, f"calc.response.{encoded}-{TOKEN}.#")
    for other in others:
        assert not re.search(writes, f"calc.request.{other}-{TOKEN}.7")
        assert not re.search(reads, f"calc.response.{other}-{TOKEN}.#")
    for key in (
        "calc.request",
        "calc.request.#",
        f"calc.request.{encoded}-{'*' * 12}",
        f"calcxrequest.{encoded}-{TOKEN}",
    ):
        assert not re.search(writes, key)
    for key in ("#", "calc.response.#", f"calc.response.{encoded}-*.#", f"calc.response.{encoded}-{TOKEN}.7"):
        assert not re.search(reads, key)


def test_direct_clients_have_nothing_of_their_own() -> None:
    found = patterns(reply="direct")
    assert found["set_permissions", "alice"] == ["^$", "^jsonrpc$", "^$"]
    assert found["set_topic_permissions", "alice"][1] == "^$"
    assert found["set_permissions", "srv"] == ["^$", r"^(jsonrpc|amq\.default)$", r"^calc_req$"]
    assert found["set_topic_permissions", "srv"] == ["^$", "^$"]


@pytest.mark.parametrize(("vhost", "exchange"), [("/", "jsonrpc"), ("it's", "r.p.c"), ("%s", "é")])
def test_the_exchange_is_declared_first(vhost: str, exchange: str) -> None:
    """RabbitMQ 4.3 refuses topic permissions for an exchange that does not exist."""
    line = permissions("calc", server_user="srv", client_user="alice", vhost=vhost, exchange=exchange)[0]
    *printf, definitions, pipe, program, command = shlex.split(line)
    assert (printf, pipe, program, command) == (["printf", "%s"], "|", "rabbitmqctl", "import_definitions")
    [declared] = json.loads(definitions)["exchanges"]
    assert (declared["vhost"], declared["name"], declared["type"], declared["durable"]) == (
        vhost,
        exchange,
        "topic",
        True,
    )


def test_names_are_escaped() -> None:
    found = patterns(exchange="r.p.c", queue="q.x", vhost="a b", reply="topic")
    assert found["set_permissions", "srv"] == ["^$", r"^r\.p\.c$", r"^q\.x$"]
    assert found["set_permissions", "alice"][1] == r"^(r\.p\.c|amq\.gen-.+)$"


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\u202e", "x" * 65])
def test_names_that_cannot_be_printed_or_stand_in_a_key_are_refused(name: str) -> None:
    with pytest.raises((InvalidName, ValueError)):
        permissions("calc", server_user="srv", client_user=name)


def test_one_user_cannot_be_both() -> None:
    done = run("permissions", "--service", "calc", "--server-user", "x", "--client-user", "x")
    assert done.returncode == 2
    assert "kept apart" in done.stderr


@pytest.mark.parametrize("option", ["--server-user", "--client-user", "--vhost", "--exchange", "--queue"])
def test_each_has_a_name(option: str) -> None:
    named = {"--server-user": "srv", "--client-user": "alice", option: ""}
    done = run("permissions", "--service", "calc", *(word for pair in named.items() for word in pair))
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no name" in done.stderr


@pytest.mark.parametrize("option", ["--server-user", "--client-user"])
def test_no_user_is_ignored_silently(option: str) -> None:
    done = run("permissions", "--service", "calc", "--server-user", "srv", "--client-user", "alice", option, "bob")
    assert (done.returncode, done.stdout) == (2, "")
    assert "give one" in done.stderr


def test_the_command_prints_lines_for_a_shell() -> None:
    done = run("permissions", "--service", "calc", "--server-user", "srv", "--client-user", "it's")
    assert done.returncode == 0
    assert done.stdout.splitlines() == permissions("calc", server_user="srv", client_user="it's")
    assert "{username}" not in done.stdout


def test_none_of_the_lines_takes_the_others_for_its_input(node: Node) -> None:
    """``rabbitmqctl`` reads its standard input, and bash reads the script from it line by line."""
    lines = lines_for(DOTTED, TOPIC)
    assert node.shell(f"{lines}echo that was all", "bash").endswith("that was all\n")
    assert len(lines.splitlines()) == 5


def test_the_lines_work_where_nothing_exists_yet(node: Node) -> None:
    """RabbitMQ 4.3 refuses topic permissions for an exchange that does not exist: the first line declares it."""
    vhost = "fresh"
    node.broker.ctl("add_vhost", vhost)
    node.broker.ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
    node.shell("\n".join(permissions("calc", server_user=SERVER, client_user=ALICE, vhost=vhost)))
    with Server(f"{node.broker.url}{vhost}", "calc"):
        pass  # an administrator makes queue and binding
    with (
        Server(node.url(SERVER, vhost), "calc", methods={"echo": str}, declare=False, verify_user=True),
        Client(node.url(ALICE, vhost), "calc", declare=False, server_user=SERVER, timeout=30) as client,
    ):
        assert client.call("echo", ["x"]) == "x"


@pytest.mark.parametrize("user", CLIENTS)
def test_the_commands_under_these_permissions(node: Node, user: str) -> None:
    """``serve`` with workers, ``call`` and ``notify``, all without the configure permission."""
    options = ["--service", SERVICE, "--no-declare", "--verify-user", "--workers", "2"]
    named = ["--user", CERTIFIED] if user == CERTIFIED else []
    with serving("tests.abuse.served:methods", *options, url=node.url(SERVER, TOPIC), processes=2) as server:
        call = ["--service", SERVICE, "--no-declare", *named]
        done = run("call", "add", "[1, 2]", *call, "--server-user", SERVER, url=node.url(user, TOPIC))
        assert (done.stdout, done.stderr) == ("3\n", "")
        assert run("notify", "add", "[1, 2]", *call, url=node.url(user, TOPIC)).returncode == 0
        done = run("call", "add", "[1, 2]", *call, "--timeout", "1", "--server-user", "x", url=node.url(user, TOPIC))
        assert done.returncode == 3
        assert "of the last: it is from user 'srv', who is not the server" in done.stderr
        done = run("call", "add", "[1, 2]", "--service", SERVICE, url=node.url(user, TOPIC))
        assert done.returncode == 3
        assert "ACCESS_REFUSED" in done.stderr
        assert "declare=False (--no-declare)" in done.stderr
        assert server.terminate() == 0


@pytest.mark.parametrize("user", CLIENTS)
def test_http_under_these_permissions(node: Node, user: str) -> None:
    """``gateway`` and ``bridge``, both without the configure permission."""
    response = b'{"jsonrpc":"2.0","result":3,"id":"a.b"}'
    body = b'{"jsonrpc":"2.0","method":"add","params":[1,2],"id":"a.b"}'
    options = ["--allow", SERVICE, *(["--user", CERTIFIED] if user == CERTIFIED else [])]
    url = node.url(user, TOPIC)

    def post(port: int, **headers: str) -> tuple[int, Any]:
        reply = request(port, "POST", f"/{SERVICE}", body, {**JSON, **headers})
        return reply.status, reply.json

    with (
        RawServer(always(ok(response))) as backend,
        bridge(SERVICE, backend.url, "--no-declare", "--verify-user", url=node.url(SERVER, TOPIC)) as server,
    ):
        with gateway(*options, "--no-declare", "--server-user", "x", "--server-user", SERVER, url=url) as (_, port):
            assert post(port) == (200, json.loads(response))
        assert [anonymous(asked.body) for asked in backend.asked] == [anonymous(body)]
        with gateway(*options, "--no-declare", "--server-user", "x", url=url) as (program, port):
            status, told = post(port, Prefer="wait=1")
            assert (status, told["error"]["code"], told["error"]["data"]) == (504, NO_ANSWER, {"may_have_run": True})
            assert "it is from user 'srv', who is not the server" in program.output
        with gateway(*options, url=url) as (program, port):
            status, told = post(port)
            assert (status, told["error"]["code"], told["error"]["data"]) == (
                502,
                NOT_DELIVERED,
                {"may_have_run": False},
            )
            assert "ACCESS_REFUSED" in program.output
        assert server.terminate() == 0


def test_a_refusal_names_declare_where_that_would_help(node: Node) -> None:
    with pytest.raises(AccessRefused, match="declare=False"):
        Server(node.url(SERVER, TOPIC), SERVICE).start()
    server = Server(node.url(CLIENTS[0], TOPIC), SERVICE, declare=False)  # a client's user may not consume
    with pytest.raises(AccessRefused) as caught:
        server.start()
    assert "declare" not in str(caught.value)
    # The reply queue is declared in any case.
    client = Client(node.url(SERVER, TOPIC), SERVICE, declare=False)
    with pytest.raises(AccessRefused, match=r"amq\.gen-") as caught:
        client.start()
    client.close()
    assert "declare" not in str(caught.value)
