"""The params of a request to the arguments of a function, by its signature and its type hints (pure)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from inspect import Parameter, formatannotation
from typing import Any, NamedTuple

from .conversion import MOST_MISFITS, Converter, DoesNotFit, Misfit, UnsupportedHint, converter
from .signatures import parameters_of, read_signature

logger = logging.getLogger("jsonrpc_amqp.dispatch")

_MISSING, _UNEXPECTED = "missing: it is required", "unexpected: there is no such parameter"


class _Taken(NamedTuple):
    """One parameter: what converts its values, or None if they stay as they come."""

    name: str
    converter: Converter | None
    is_required: bool

    @property
    def exact(self) -> frozenset[type] | None:
        """The types of values that stay as they come; None: all of them."""
        return None if self.converter is None else self.converter.exact

    @property
    def convert(self) -> Callable[[Any], Any] | None:
        """Converts a value, and raises ``DoesNotFit``."""
        return None if self.converter is None else self.converter.convert

    def convert_or_note(self, path: str, value: Any, misfits: list[Misfit]) -> Any:
        """Return a value converted; note what does not fit."""
        if self.converter is None:
            return value
        try:
            return self.converter(value)
        except DoesNotFit as exc:
            misfits += exc.below(path)
            return None


class Parameters:
    """
    The parameters of one function.

    Args:
        name: The method's name, for messages.
        function: The function.
        validate: Convert arguments to what the hints declare.

    Attributes:
        signature: See ``read_signature``.
        may_be_supplied: A parameter that no argument is given for may be supplied by a wrapper.

    Raises:
        TypeError: A hint cannot be evaluated, or nothing converts to what it declares.
    """

    __slots__ = (
        "_convert",
        "_convert_by_name",
        "_counts",
        "_exact",
        "_exact_by_name",
        "_has_hints",
        "_named",
        "_positional",
        "_required",
        "_rest",
        "_rest_by_name",
        "may_be_supplied",
        "signature",
    )

    def __init__(self, name: str, function: Callable[..., Any], *, validate: bool) -> None:
        self.signature, self.may_be_supplied = read_signature(name, function, evaluate=validate)
        taken: defaultdict[Any, list[_Taken]] = defaultdict(list)
        for each in parameters_of(self.signature):
            try:
                found = converter(each.annotation) if validate and each.annotation is not each.empty else None
            except UnsupportedHint as exc:
                if not self.may_be_supplied:
                    raise TypeError(_unsupported(name, each, exc)) from exc
                logger.info("a wrapper must supply what callers cannot: %s", _unsupported(name, each, exc))
            else:
                taken[each.kind].append(_Taken(each.name, found, each.default is each.empty))
        either, named_only = taken[Parameter.POSITIONAL_OR_KEYWORD], taken[Parameter.KEYWORD_ONLY]
        self._positional = taken[Parameter.POSITIONAL_ONLY] + either
        self._named = {each.name: each for each in either + named_only}
        self._rest = next(iter(taken[Parameter.VAR_POSITIONAL]), None)
        self._rest_by_name = next(iter(taken[Parameter.VAR_KEYWORD]), None)
        # In the order of the signature.
        self._required = dict.fromkeys(each.name for each in self._positional + named_only if each.is_required)
        self._note_exact()

    def _note_exact(self) -> None:
        """Prepare what tells in a moment that params fit as they come; that is so for nearly all."""
        least = sum(each.is_required for each in self._positional)
        is_possible = not any(each.is_required for each in self._named.values() if each not in self._positional)
        self._counts = range(least, len(self._positional) + 1) if is_possible else range(0)
        self._has_hints = any(each.converter is not None for each in (*self._positional, *self._named.values()))
        self._exact = [each.exact for each in self._positional]
        self._exact_by_name = {name: each.exact for name, each in self._named.items()}
        self._convert = [each.convert for each in self._positional]
        self._convert_by_name = {name: each.convert for name, each in self._named.items()}

    def positional(self, params: list[Any]) -> list[Any]:
        """
        Return the arguments for params by position.

        Raises:
            DoesNotFit: They are not what the function takes.
            Exception: What code of a hint's own raised, such as a ``__post_init__``.
        """
        if len(params) in self._counts:
            if not self._has_hints:
                return params
            for value, exact in zip(params, self._exact, strict=False):
                if exact is not None and type(value) not in exact:
                    break
            else:
                return params
            try:
                return [each(value) if each else value for each, value in zip(self._convert, params, strict=False)]
            except DoesNotFit:
                pass  # all that does not fit is found below
        misfits: list[Misfit] = []
        values = []
        for index, value in enumerate(params):
            if len(misfits) >= MOST_MISFITS:
                break  # there may be a million more
            beyond = index - len(self._positional)
            if beyond < 0:
                taken = self._positional[index]
                values.append(taken.convert_or_note(taken.name, value, misfits))
            elif self._rest is not None:
                values.append(self._rest.convert_or_note(f"{self._rest.name}[{beyond}]", value, misfits))
            else:
                misfits.append(Misfit(f"[{index}]", f"unexpected: at most {index} can be given by position"))
                break
        self._check(misfits, params)
        return values

    def by_name(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments for params by name; raises as ``positional``."""
        names = params.keys()
        if names <= self._exact_by_name.keys() and names >= self._required.keys():
            if not self._has_hints:
                return params
            for name, value in params.items():
                exact = self._exact_by_name[name]
                if exact is not None and type(value) not in exact:
                    break
            else:
                return params
            try:
                convert = self._convert_by_name
                return {name: each(value) if (each := convert[name]) else value for name, value in params.items()}
            except DoesNotFit:
                pass
        misfits: list[Misfit] = []
        values = {}
        for name, value in params.items():
            if len(misfits) >= MOST_MISFITS:
                break
            taken = self._named.get(name, self._rest_by_name)
            if taken is None:
                misfits.append(Misfit(name, _UNEXPECTED))
            else:
                values[name] = taken.convert_or_note(name, value, misfits)
        self._check(misfits, params)
        return values

    def missing(self, params: list[Any] | dict[str, Any]) -> list[Misfit]:
        """Return what is required and has no argument in params."""
        given = (
            params.keys() & self._named.keys()
            if isinstance(params, dict)
            else {each.name for each in self._positional[: len(params)]}
        )
        return [Misfit(name, _MISSING) for name in self._required if name not in given]

    def _check(self, misfits: list[Misfit], params: list[Any] | dict[str, Any]) -> None:
        if not self.may_be_supplied:
            misfits += self.missing(params)
        if misfits:
            raise DoesNotFit(misfits)


def _unsupported(name: str, parameter: Parameter, why: UnsupportedHint) -> str:
    return (
        f"method {name!r}, parameter {parameter.name!r}: the hint {formatannotation(parameter.annotation)} cannot be "
        f"converted to from JSON ({why}). Change it, or register the method with validate=False"
    )
