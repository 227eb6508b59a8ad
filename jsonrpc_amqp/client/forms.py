"""The forms of a call with middleware: what it sees of each, and what makes the call of what it has passed on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from .. import context
from ..jsonrpc import messages
from ..jsonrpc.params import Params
from ..wire.names import qid_of
from . import sent
from .base import BaseCalls, C, nothing, time_left
from .batch import BatchMessage, outcomes_of
from .call import Call
from .call_options import Options
from .chain import Form, Make
from .middleware import OutgoingRequest


class Forms(BaseCalls):
    """
    Makes a ``Form`` of what a program asks for.

    Each raises at once what is wrong with the options, and ``ClientClosed``; what is wrong with the params, or too
    large, is known when the innermost middleware passes it on.
    """

    def _call_form(self, method: str, params: Params, options: Options) -> Form:
        def make(kind: Callable[..., C], request: OutgoingRequest, options: Options) -> C:
            return self._make_call(kind, _method(request), request.params, options)

        return self._form(make, options, OutgoingRequest(method, params))

    def _notification_form(self, method: str, params: Params, options: Options) -> Form:
        def make(kind: Callable[..., C], request: OutgoingRequest, options: Options) -> C:
            return self._make_notification(kind, _method(request), request.params, options)

        return self._form(make, options, OutgoingRequest(method, params, is_notification=True))

    def _raw_form(self, body: bytes, options: Options) -> Form:
        def make(kind: Callable[..., C], request: OutgoingRequest, options: Options) -> C:
            _check_has_no_method(request, "bytes have no method of their own: change request.body")
            return self._make_raw(kind, cast(bytes, request.body), options)  # which checks that

        is_notification = isinstance(body, bytes) and messages.classify(body).is_notification
        return self._form(make, options, OutgoingRequest(None, body=body, is_notification=is_notification))

    def _batch_form(self, message: BatchMessage, options: Options) -> Form:
        is_notification = message.is_notification

        def make(kind: Callable[..., C], request: OutgoingRequest, options: Options) -> C:
            _check_has_no_method(request, "a batch is sent as it is, but for its headers and service")
            call = self._make(kind, message.body, options, is_notification=is_notification, parse=message.outcomes)
            message.note_sent(call)
            return call

        seen = OutgoingRequest(None, members=message.members, is_notification=is_notification)
        return self._form(make, options, seen)

    def _send_form(self, request: sent.Requests, options: Options) -> Form:
        if sent.is_request(request):
            return self._sent_form(request, options)
        body = sent.encode(request)
        if isinstance(request, Mapping) or not all(isinstance(each, Mapping) for each in request):
            return self._raw_form(body, options)
        is_notification = messages.classify(body).is_notification
        outcomes = partial(outcomes_of, ids=sent.ids_of(request), exception_for=messages.to_exception)
        parse = nothing if is_notification else outcomes
        message = BatchMessage(body, sent.members_of(request), is_notification, parse, _keep_nothing)
        return self._batch_form(message, options)

    def _sent_form(self, given: sent.Single, options: Options) -> Form:
        is_notification = "id" not in given

        def make(kind: Callable[..., C], request: OutgoingRequest, options: Options) -> C:
            _method(request)
            body = sent.encode(sent.changed(given, request))
            if is_notification:
                return self._make(kind, body, options, is_notification=True, parse=nothing)
            parse = partial(messages.result_of, expected_id=given["id"])
            return self._make(kind, body, options, qid=qid_of(given["id"]), parse=parse)

        seen = OutgoingRequest(given["method"], given.get("params"), is_notification=is_notification)
        return self._form(make, options, seen)

    def _form(self, make: Make, options: Options, request: OutgoingRequest) -> Form:
        """
        Resolve options for middleware; ``request`` gets its service, headers and deadline.

        Raises:
            CallTimeout: The caller of this handler has given up.
            ClientClosed: The client was closed, or another process uses it.
            Exception: See ``_choose``.
        """
        life = self._requests.life
        life.check_process()
        life.check_open()
        chosen = self._choose(options) if options else self._chosen or self._choose({})
        send = chosen.notification if request.is_notification else chosen.call
        if send.persistent and not send.is_notification:
            self._requests.check_confirms()
        handled = context.current_or_none()
        timeout = chosen.timeout if handled is None else time_left(handled, chosen.timeout)
        request.service, request.headers = chosen.service, dict(send.headers or {})
        request.deadline = math.inf if timeout is None else time.monotonic() + timeout
        return Form(request, options, send.retry, timeout, make, self._requests.endings)


def _keep_nothing(_call: Call) -> None:
    """Do nothing: ``send`` has no futures that could be cancelled."""


def _method(request: OutgoingRequest) -> str:
    if request.body is not None:
        raise TypeError("a call has a method and params: request.body is for send_raw and submit_raw alone")
    return cast(str, request.method)  # what encodes it checks that


def _check_has_no_method(request: OutgoingRequest, why: str) -> None:
    if request.method is not None or request.params is not None:
        raise TypeError(why)
