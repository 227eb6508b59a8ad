"""
JSON-RPC over HTTP POST into services on the bus, as an ASGI application (the only import of Starlette).

    app = Gateway(client, allow=["calc"])                  # POST /calc, GET /healthz
    Starlette(routes=[Mount("/rpc", app)])                 # in another application: POST /rpc/calc

Everyone who can reach it calls as the client's AMQP user: put authentication in front of it, or around it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable

from ..client.async_client import AsyncClient
from ..client.client import Client
from ..errors import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    NO_ANSWER,
    NOT_DELIVERED,
    PARSE_ERROR,
    Blocked,
    CallTimeout,
    ClientClosed,
    MessageTooLarge,
    MissingExtra,
    NoConsumers,
    NotConnected,
    Overloaded,
    RemoteError,
    TooManyPending,
    TransportError,
    Unroutable,
)
from ..jsonrpc import inspection
from ..options import MAX_BATCH, TIMEOUT
from ..wire.display import printable
from ..wire.names import check_service
from .headers import content_coding, is_json
from .limits import MAX_IN_FLIGHT, MAX_SIZE, MAX_WAIT
from .origins import Origins

try:
    import anyio
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from starlette.types import Receive, Scope, Send
except ImportError as exc:
    raise MissingExtra(__name__, "starlette", "http") from exc

log = logging.getLogger("jsonrpc_amqp.gateway")

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
# https://www.rfc-editor.org/rfc/rfc7240#section-4.3; where a preference is given several times, the first one counts.
_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*([0-9]{1,9})\s*(?:[,;]|$)", re.IGNORECASE)

# Our errors as HTTP statuses and texts; the first class that fits counts. 503: nothing was sent, and a retry may
# succeed. 502: something else went wrong on the bus.
_STATUSES: tuple[tuple[type[TransportError], int, str], ...] = (
    (Unroutable, 404, "no such service"),
    (MessageTooLarge, 413, "the request is too large"),
    (CallTimeout, 504, "the service did not answer in time"),
    (NoConsumers, 503, "the service has no server now"),
    (NotConnected, 503, "there is no connection to the broker"),
    (Blocked, 503, "the broker takes no messages"),
    (Overloaded, 503, "the queue of the service is full"),
    (TooManyPending, 503, "the gateway waits for as many answers as it may"),
    (ClientClosed, 503, "the gateway is closed"),
    (TransportError, 502, "the request was lost between the gateway and the service"),
)


class _HttpError(Exception):
    """Ends a request with an HTTP error status, and with a JSON-RPC error for each of its calls."""

    def __init__(self, status: int, error: RemoteError, asked: inspection.Requested = inspection.UNREADABLE) -> None:
        super().__init__(status, error, asked)
        self.status = status
        self.error = error
        self.asked = asked


class Gateway:
    """
    An ASGI application: a JSON-RPC body posted to ``/SERVICE`` goes to that service, and its reply comes back.

    Bodies pass unchanged in both directions. 200 has a response, which may be an error of the method; 204 is for a
    notification that the broker has confirmed, on disk. Every other status comes with a JSON-RPC error:

    400 no JSON; 403 from a page of another origin; 404 no such service, or not allowed here; 405 not a POST; 408 the
    body came too slowly; 413 a body or a batch over its cap; 415 not JSON by its content type, or compressed; 421 for
    another host; 499 the HTTP client disconnected before the reply (only counted; it may have run); 502 lost on the bus
    (it may have run); 503 not connected, too many requests, or no server where the client has ``no_consumers="fail"``;
    504 no reply in time.

    It does not read the body of a request that it refuses for its headers, and its errors repeat nothing of a request
    but the ids, and the name of a content encoding. A page of another origin cannot make a browser call it: it sends no
    CORS headers, requires a content type that HTML forms cannot send, and checks ``Origin`` and ``Host``.

    Args:
        client: Calls the services. It connects at the first use; the gateway does not close it. An ``AsyncClient`` is
            driven by the event loop of the gateway; a ``Client`` costs a change of threads for each request.
        allow: The services; nothing else is served.
        timeout: Seconds for a request without ``Prefer: wait=N``, from its headers to the reply.
        max_wait: The most seconds that a request may ask for.
        max_size: Most bytes of a request.
        max_batch: Most members of a batch.
        max_in_flight: Most requests at a time; those beyond get 503 at once. If several services are allowed, each may
            have as many as there are places left, so that one that does not answer leaves places to the others.
        allow_hosts: Names that ``Host`` may have beside localhost and IP addresses; ``*`` allows each.
        allow_origins: Origins such as ``https://example.com`` whose pages may call it; ``*`` allows each.

    Raises:
        InvalidName: A service's name breaks a rule.
        TypeError: ``allow``, ``allow_hosts`` or ``allow_origins`` is a string.
        ValueError: ``timeout`` or ``max_wait`` is not above 0; a host or an origin is malformed.
    """

    def __init__(
        self,
        client: AsyncClient | Client,
        *,
        allow: Iterable[str],
        timeout: float = TIMEOUT,
        max_wait: float = MAX_WAIT,
        max_size: int = MAX_SIZE,
        max_batch: int = MAX_BATCH,
        max_in_flight: int = MAX_IN_FLIGHT,
        allow_hosts: Iterable[str] = (),
        allow_origins: Iterable[str] = (),
    ) -> None:
        if isinstance(allow, str):
            raise TypeError("allow is a list of services, not one name")
        if not timeout > 0 or not max_wait > 0:
            raise ValueError("timeout and max_wait are numbers of seconds above 0")
        self._client = client
        self._allow = frozenset(map(check_service, allow))
        self._timeout = timeout
        self._max_wait = max_wait
        self._max_size = max_size
        self._max_batch = max_batch
        self._max_in_flight = max_in_flight
        self._origins = Origins(allow_hosts, allow_origins)
        self._in_flight: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._app = Starlette(
            routes=[Route("/healthz", self._health), Route("/{service}", self._post, methods=["POST"])],
            exception_handlers={HTTPException: self._respond_not_served, Exception: self._respond_broken},
        )
        # Starlette's redirection to a path without the slash would repeat the request's Host header.
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as an ASGI application."""
        await self._app(scope, receive, send)

    def stats(self) -> dict[str, int]:
        """
        Return the number of responses since the start by HTTP status, and of requests ``in_flight``.

        ``cut_off``, where it is not 0: requests without a response, because the HTTP server stopped.
        """
        return {**self._counts, "in_flight": self._in_flight.total()}

    # -- endpoints ----------------------------------------------------------------------------------------

    async def _health(self, request: Request) -> Response:
        """Report to a load balancer whether services can be called; begin to connect if there is no connection."""
        try:
            starting = self._client.start(timeout=0)
            if inspect.isawaitable(starting):
                await starting
        except TransportError:
            return JSONResponse({"status": "no connection to the broker"}, 503, _HEADERS)
        if not self._client.is_ready:
            return JSONResponse({"status": "the broker is silent, or takes no messages"}, 503, _HEADERS)
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def _post(self, request: Request) -> Response:
        headers: dict[str, str] = {}
        try:
            reply = await self._admit(request, headers)
        except _HttpError as exc:
            if exc.status == 503:
                headers["Retry-After"] = "1"
            return self._respond(exc.status, inspection.error(exc.asked, exc.error), headers)
        return self._respond(204 if reply is None else 200, reply, headers)

    async def _respond_not_served(self, request: Request, exc: Exception) -> Response:
        if isinstance(exc, HTTPException) and exc.status_code == 405:
            error = RemoteError(INVALID_REQUEST, "JSON-RPC is posted")
            return self._respond(405, inspection.error(inspection.UNREADABLE, error), {"Allow": "POST"})
        error = RemoteError(INVALID_REQUEST, "nothing is served here; a service is at /SERVICE")
        return self._respond(404, inspection.error(inspection.UNREADABLE, error), {})

    async def _respond_broken(self, request: Request, exc: Exception) -> Response:
        error = RemoteError(INTERNAL_ERROR, "Internal error")
        return self._respond(500, inspection.error(inspection.UNREADABLE, error), {})

    def _respond(self, status: int, body: bytes | None, headers: dict[str, str]) -> Response:
        self._counts[str(status)] += 1
        return Response(body, status, {**_HEADERS, **headers}, media_type=None if body is None else "application/json")

    # -- the steps of a request; each may raise _HttpError ---------------------------------------------------

    async def _admit(self, request: Request, headers: dict[str, str]) -> bytes | None:
        service = request.path_params["service"]
        self._check_origin(request)
        if service not in self._allow or not _is_literal(request.scope, service):
            raise _HttpError(404, _not_delivered("no such service"))
        if not is_json(request.headers.getlist("content-type")):
            raise _HttpError(415, RemoteError(INVALID_REQUEST, "the content type has to be application/json, in UTF-8"))
        coding = content_coding(request.headers.getlist("content-encoding"))
        if coding is not None:
            # https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3
            headers["Accept-Encoding"] = "identity"
            message = f"the body has the content encoding {coding}; identity is accepted only, that is none"
            raise _HttpError(415, RemoteError(INVALID_REQUEST, message))
        self._check_places(service)
        wait = self._timeout
        wanted = _WAIT.search(",".join(request.headers.getlist("prefer")))
        if wanted is not None:
            wait = min(float(wanted[1]), self._max_wait)
            headers["Preference-Applied"] = f"wait={wait:.0f}"
        self._in_flight[service] += 1
        try:
            return await self._forward(request, service, time.monotonic() + wait)
        except asyncio.CancelledError:
            self._counts["cut_off"] += 1  # by the server, which stops
            raise
        finally:
            self._in_flight[service] -= 1

    def _check_origin(self, request: Request) -> None:
        """Refuse what the page of another origin has a browser send."""
        hosts, origins = request.headers.getlist("host"), request.headers.getlist("origin")
        if not self._origins.allows_host(hosts):
            log.warning(
                "refused a request for host %s; --allow-host (allow_hosts=) allows it", printable(", ".join(hosts))
            )
            raise _HttpError(421, _not_delivered("this host name is not allowed here"))
        if not self._origins.allows_origin(origins, request.headers.getlist("sec-fetch-site"), hosts):
            origin = printable(", ".join(origins))
            log.warning("refused a request from origin %s; --allow-origin (allow_origins=) allows it", origin)
            raise _HttpError(403, _not_delivered("pages of this origin are not allowed to call"))

    def _check_places(self, service: str) -> None:
        free = self._max_in_flight - self._in_flight.total()
        if free <= 0:
            raise _HttpError(503, _not_delivered("too many requests at a time"))
        if len(self._allow) > 1 and self._in_flight[service] >= free:
            raise _HttpError(503, _not_delivered("too many requests at a time for this service"))

    async def _forward(self, request: Request, service: str, deadline: float) -> bytes | None:
        body = await self._read_body(request)
        try:
            asked = inspection.read(body, max_batch=self._max_batch)
        except RemoteError as error:
            raise _HttpError(400 if error.code == PARSE_ERROR else 413, error) from error
        try:
            left = max(0.0, deadline - time.monotonic())
            reply = self._client.submit_raw(body, service=service, timeout=left)
            return await _unless_disconnected(request, asyncio.wrap_future(reply))
        except TransportError as exc:
            raise _http_error(service, asked, exc) from exc

    async def _read_body(self, request: Request) -> bytes:
        cap = f"the request is over the cap of {self._max_size} bytes"
        too_large = _HttpError(413, RemoteError(INVALID_REQUEST, cap))
        declared = request.headers.get("content-length", "")
        # Cut, since converting a very long number takes long, or fails.
        if declared.isdecimal() and int(declared[:20]) > self._max_size:
            raise too_large
        body = bytearray()
        try:
            with anyio.fail_after(self._timeout):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._max_size:
                        raise too_large
        except TimeoutError:
            raise _HttpError(408, RemoteError(INVALID_REQUEST, "the body came too slowly")) from None
        except ClientDisconnect:
            raise _HttpError(400, RemoteError(INVALID_REQUEST, "the body broke off")) from None
        return bytes(body)


async def _unless_disconnected(request: Request, reply: asyncio.Future[bytes | None]) -> bytes | None:
    """Wait for a reply; cancel the call once no HTTP client waits for it, so that it does not count as in flight."""
    disconnected = asyncio.ensure_future(_until_disconnected(request))
    disconnected.add_done_callback(lambda _: reply.cancel())
    try:
        return await reply
    except asyncio.CancelledError:
        if not disconnected.done():
            raise
        raise _HttpError(499, RemoteError(NO_ANSWER, "the HTTP client is gone", {"may_have_run": True})) from None
    finally:
        disconnected.cancel()


async def _until_disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _is_literal(scope: Scope, service: str) -> bool:
    """Whether a path has a service's name as it is: ``/%63alc`` would pass a proxy that guards ``/calc``."""
    path = scope.get("raw_path")  # optional in ASGI
    return path is None or path.partition(b"?")[0].endswith(b"/" + service.encode())


def _not_delivered(message: str) -> RemoteError:
    return RemoteError(NOT_DELIVERED, message, {"may_have_run": False})


def _http_error(service: str, asked: inspection.Requested, exc: TransportError) -> _HttpError:
    # Log the details for the operator and keep them from callers: they name hosts, queues and numbers of servers.
    log.info("a request for %r failed: %s", service, printable(str(exc)))
    status, message = next((status, message) for error, status, message in _STATUSES if isinstance(exc, error))
    code = NO_ANSWER if exc.may_have_run else NOT_DELIVERED
    return _HttpError(status, RemoteError(code, message, {"may_have_run": exc.may_have_run}), asked)
