"""Finds the server that TARGET of ``serve`` describes."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from .. import AsyncServer, Server, global_methods
from .common import WrongUsage, given

_SERVER_OPTIONS = (
    "concurrency",
    "prefetch",
    "exchange",
    "queue",
    "queue_type",
    "delivery_limit",
    "dead_letters",
    "redelivery",
    "ack",
    "dialect",
    "recipe_method",
    "declare",
    "user",
    "verify_user",
)

# Where the files of this package are.
_PACKAGE = str(Path(__file__).parents[1]) + os.sep

AnyServer = Server | AsyncServer

log = logging.getLogger("jsonrpc_amqp.cli")


def make_server(context: click.Context, target: str, url: str, options: Mapping[str, Any]) -> AnyServer:
    """
    Return the server that TARGET and the options describe.

    Raises:
        WrongUsage: There is none, or they contradict each other.
    """
    found = _find(target)
    if isinstance(found, AnyServer):
        _check_agreement(context, target, found)
        is_given_here = os.environ.get("AMQP_URL") or os.environ.get("AMQP_URL_FILE")
        if is_given_here and not found.is_at(url):
            log.warning("%s is a Server, which has its own url: that of the environment is not used", target)
        return found
    if not options["service"]:
        raise WrongUsage(f"which service? Give --service: {target} is no Server with a name of its own")
    if (options["dialect"] == "recipe2011") != (options["recipe_method"] is not None):
        raise WrongUsage("--dialect recipe2011 and --recipe-method need each other: its requests name no method")
    try:
        server = Server(url, methods=found, **given(options))
    except (TypeError, ValueError) as error:
        raise WrongUsage(error) from None
    if server.dialect_problem is not None:
        raise WrongUsage(server.dialect_problem)
    return server


def _check_agreement(context: click.Context, target: str, server: AnyServer) -> None:
    for name in ("url", "url_file", *_SERVER_OPTIONS):
        if is_given(context, name):
            option = name.replace("_", "-")
            raise WrongUsage(f"{target} is a Server, which has its own {name.removesuffix('_file')}: drop --{option}")
    service = context.params["service"]
    if service not in (None, server.service):
        raise WrongUsage(f"{target} is a Server of {server.service!r}, and of no other: drop --service")


def _find(target: str) -> AnyServer | Mapping[str, Any]:
    if "://" in target:
        raise WrongUsage("this is a broker's URL, which belongs to --url; TARGET is a module")
    module_name, colon, attribute = target.partition(":")
    found: Any = _import(module_name)
    if colon:
        try:
            found = attrgetter(attribute)(found)
        except AttributeError:
            raise WrongUsage(f"{module_name} has no attribute {attribute!r}") from None
    if isinstance(found, ModuleType):
        found = _served_object(found)
    if isinstance(found, (Server, AsyncServer, Mapping)):
        return found
    raise WrongUsage(
        f"{target} is a {type(found).__name__}; what can be served is a Server, a dict of methods, or a module"
    )


def _import(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        log.debug("cannot import %s", name, exc_info=error)
        hint = f"; a module is named without .py: {name[:-3]}" if name.endswith(".py") else ""
        raise WrongUsage(f"cannot import {name}: {_describe(error)}{hint}") from None


def _describe(error: BaseException) -> str:
    """Describe what an import raised, and where in the code of the program, unless the import machinery raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    # A mistake that this package finds is in the line that called it.
    theirs = [each for each in frames if not each.filename.startswith(_PACKAGE)] or frames
    where = theirs[-1]
    place = "" if "importlib" in where.filename else f" ({where.filename}, line {where.lineno})"
    return f"{type(error).__name__}: {error}{place}"


def _served_object(module: ModuleType) -> AnyServer | Mapping[str, Any]:
    servers = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, AnyServer)}
    if len(servers) > 1:
        names = " or ".join(f"{module.__name__}:{name}" for name, _server in servers.values())
        raise WrongUsage(f"{module.__name__} has several Servers; say which: {names}")
    for _name, server in servers.values():
        return server
    if not global_methods:
        raise WrongUsage(
            f"{module.__name__} has nothing to serve: no Server, and no method registered with jsonrpcserver's @method"
        )
    return global_methods


def is_given(context: click.Context, name: str) -> bool:
    """Return whether an option was on the command line; the environment does not count."""
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
