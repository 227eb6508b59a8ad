"""
Errors that a program defines: raised in a method, and raised again at the caller (pure).

    class OutOfStock(ApplicationError, code=1001):
        '''There is not enough of it.'''

        sku: str
        left: int = 0
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, ClassVar, Self, dataclass_transform

from .errors import RemoteError

# https://www.jsonrpc.org/specification#error_object
_RESERVED = range(-32768, -32000 + 1)
_TAKEN = frozenset({*dir(RemoteError), "code", "message", "data"})
_BETWEEN_WORDS = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass_transform(eq_default=False, field_specifiers=(dataclasses.field,))
class ApplicationError(RemoteError):
    """
    Base of the errors of an application: a code, a message, and fields.

    The annotations of a subclass are its fields, as those of a dataclass are, and the arguments of its constructor. A
    method raises it, and the reply has its code and message, and the fields as ``data``, an object. A client that knows
    the class (``Client(errors=...)``) raises it again, with its fields.

    A subclass without ``code=`` has no code, also if the class that it derives from has one. It cannot be raised, and
    serves as a base to catch.

    Args:
        code: A keyword of the class: the error's number. The specification reserves -32768 to -32000.
        message: A keyword of the class: one sentence. Without it the first line of the docstring, without its full
            stop, or else the words of the class's name.

    Attributes:
        message: At a client as it came, like ``data``.
        data: The fields by name, or None if there are none. At a client as it came.

    Raises:
        TypeError: On definition: the code is no integer, or the fields are none that a dataclass can have. On
            instantiation: the class has no code, or the arguments do not fit its fields.
        ValueError: On definition: the code is reserved, or a field has the name of an attribute of ``RemoteError``.
    """

    _code: ClassVar[int | None] = None

    def __init_subclass__(cls, *, code: int | None = None, message: str | None = None) -> None:
        super().__init_subclass__()
        cls._code = _checked_code(cls, code)
        if code is not None:
            cls.code = code
        cls.message = _message(cls) if message is None else _checked_message(cls, message)
        dataclasses.dataclass(eq=False)(cls)
        taken = sorted(field.name for field in dataclasses.fields(_as_dataclass(cls)) if field.name in _TAKEN)
        if taken:
            raise ValueError(f"a field of {cls.__name__} cannot be called {taken[0]}, as an attribute of all errors is")

    def __new__(cls, *args: Any, **fields: Any) -> Self:
        if not has_code(cls):
            raise TypeError(
                f"{cls.__name__} has no code, and so cannot be raised: class {cls.__name__}(..., code=1001)"
            )
        return super().__new__(cls, *args)

    @property
    def data(self) -> Any:
        if "data" in vars(self):
            return vars(self)["data"]
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(_as_dataclass(self))} or None

    @data.setter
    def data(self, value: Any) -> None:
        vars(self)["data"] = value


def _as_dataclass(value: object) -> Any:
    """Return a class or an object as what it is, which type checkers do not see: subclasses are made dataclasses."""
    return value


def has_code(kind: type[ApplicationError]) -> bool:
    """Whether a class names a code, so that it can be raised."""
    return kind._code is not None


def _checked_code(cls: type, code: object) -> int | None:
    if code is None:
        return None
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"the code of {cls.__name__} must be an integer, not {code!r}")
    if code in _RESERVED:
        raise ValueError(f"the code of {cls.__name__} is {code}: JSON-RPC reserves {_RESERVED[0]} to {_RESERVED[-1]}")
    return code


def _checked_message(cls: type, message: object) -> str:
    if not isinstance(message, str):
        raise TypeError(f"the message of {cls.__name__} must be a string, not {message!r}")
    return message


def _message(cls: type) -> str:
    """Return the message of a class that names none."""
    # Before it is a dataclass, which has a docstring in any case.
    first = (cls.__doc__ or "").strip().partition("\n")[0].strip().removesuffix(".")
    return first or _in_words(cls.__name__)


def _in_words(name: str) -> str:
    """Return the name of a class as a phrase: ``OutOfStock`` as "Out of stock"."""
    words = [word for word in _BETWEEN_WORDS.split(name) if word] or [name]
    phrase = " ".join(word if len(word) > 1 and word.isupper() else word.lower() for word in words)
    return phrase[0].upper() + phrase[1:]
