"""
Values of JSON to what a type hint declares, and what does not fit (pure).

msgspec converts. pydantic does, where it is installed, if a hint needs it: for its own models, and for what msgspec
does not know, such as a union of two dataclasses or a ``Path``. Both are strict: ``"1"`` is no ``int``, and ``True``
neither; an integer fits ``float``.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect as shapes

from .class_defaults import Complete, completer

# Most misfits that are told, and characters of a name or a message in them: they hold what a peer has sent.
MOST_MISFITS, _MOST_CHARACTERS = 100, 256
# msgspec ends its messages so: "Expected `int`, got `str` - at `$.items[3].price`", or "... - at `key` in `$.prices`".
_PLACE = re.compile(r"(?s)(.*) - at `(?:(key)` in `)?\$(.*)`")
# Values of these types are made from JSON. What none of them is an instance of, no JSON value can be.
_JSON_TYPES = (str, int, float, bool, type(None), list, dict)


class Misfit(NamedTuple):
    """
    What does not fit.

    Attributes:
        path: Where, such as ``order.items[3].sku``, or ``""`` for the value itself.
        message: What was expected there, and what was found.
    """

    path: str
    message: str


class DoesNotFit(ValueError):
    """
    A value is not what was declared.

    Attributes:
        misfits: At least one; all that one pass has found.
    """

    def __init__(self, misfits: list[Misfit]) -> None:
        super().__init__(misfits)
        self.misfits = misfits

    def __str__(self) -> str:
        return "; ".join(f"{path}: {message}" if path else message for path, message in self.misfits)

    def as_data(self) -> list[dict[str, str]]:
        """Return the misfits as JSON has them."""
        return [
            {"path": shortened(each.path), "message": shortened(each.message)} for each in self.misfits[:MOST_MISFITS]
        ]

    def below(self, path: str) -> list[Misfit]:
        """Return the misfits of a part, as those of the whole."""
        return [Misfit(path + each.path, each.message) for each in self.misfits]


class UnsupportedHint(TypeError):
    """No JSON value can be converted to what a hint declares, or not by a library that is installed."""


class Converter(NamedTuple):
    """
    Converts values to what one hint declares.

    Attributes:
        exact: Values of exactly these types are what was declared, as they are.
        convert: Returns any other value converted; raises ``DoesNotFit``, with paths that begin at the value, and
            whatever code of the user's own raises, such as a ``__post_init__``.
    """

    exact: frozenset[type]
    convert: Callable[[Any], Any]

    def __call__(self, value: Any) -> Any:
        """Convert a value."""
        return value if type(value) in self.exact else self.convert(value)


def converter(hint: Any) -> Converter | None:
    """
    Return what converts values to a type hint, or None: any value fits, and stays as it is.

    Args:
        hint: A type, and no string; see https://jcristharif.com/msgspec/supported-types.html.

    Raises:
        UnsupportedHint: There is none; the message says why.
    """
    shape, problem = _examined(hint)
    if problem:
        return Converter(frozenset(), _by_pydantic(hint, problem))
    return None if _is_any_value(shape, hint) else Converter(_exact(shape), _by_msgspec(hint, completer(shape)))


def needs_pydantic(hint: Any) -> bool:
    """
    Whether pydantic converts values to a hint, or nothing does; else msgspec.

    Raises:
        UnsupportedHint: It is for both of them.
    """
    return bool(_examined(hint)[1])


def shortened(text: str) -> str:
    """Return a text that a peer may have sent, cut for a message."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


# -- converting -----------------------------------------------------------------------------------------------------


def _by_msgspec(hint: Any, complete: Complete | None) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        try:
            converted = msgspec.convert(value, hint, str_keys=True)
        except msgspec.ValidationError as exc:
            raise DoesNotFit([_placed(str(exc))]) from exc
        except TypeError as exc:  # a list as the member of a set; what code of the user's raises is a ValidationError
            raise DoesNotFit([Misfit("", str(exc))]) from exc
        if complete is not None:
            complete(converted)
        return converted

    return convert


def _placed(text: str) -> Misfit:
    """Return a message of msgspec's as a misfit."""
    found = _PLACE.fullmatch(text)
    if found is None:
        return Misfit("", text)
    message, is_key, path = found.groups()
    return Misfit(path, f"in a name of a member: {message}" if is_key else message)


def _by_pydantic(hint: Any, why: str) -> Callable[[Any], Any]:
    try:
        from . import pydantic_types
    except ImportError:
        raise UnsupportedHint(f"{why}, and pydantic, which may convert it, is not installed") from None
    try:
        validate = pydantic_types.converter(hint)
    except Exception as exc:  # of many classes
        raise UnsupportedHint(f"{why}; pydantic: {str(exc).partition(chr(10))[0]}") from exc

    def convert(value: Any) -> Any:
        try:
            return validate(msgspec.json.encode(value))
        except pydantic_types.Mistakes as exc:
            raise DoesNotFit([Misfit(_path(steps), message) for steps, message in exc.told]) from None

    return convert


def _path(steps: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


# -- what a hint consists of ----------------------------------------------------------------------------------------


def _examined(hint: Any) -> tuple[shapes.Type, str]:
    """
    Return what a hint is to msgspec, and why msgspec does not convert to it; an empty text if it does.

    Raises:
        UnsupportedHint: Nothing does.
    """
    try:
        shape = shapes.type_info(hint)
    # TypeError for most; names that cannot be resolved in a class raise others.
    except Exception as exc:
        return shapes.AnyType(), str(exc) or type(exc).__name__
    if _is_any_value(shape, hint):
        return shape, ""
    parts = list(_parts(shape))
    constraints = {type(each) for part in (hint, *map(_hints_of, parts)) for each in _metadata(part)}
    problem = next(filter(None, (*map(_problem, parts), *map(_foreign, constraints))), "")
    if problem and msgspec.Meta in constraints:
        raise UnsupportedHint(f"{problem}, and msgspec.Meta is in the same hint")
    return shape, problem


def _parts(shape: object) -> Iterator[shapes.Type]:
    """Return a shape and all shapes in it; recursive types lead back to themselves."""
    seen: set[int] = set()
    found = [shape]
    for each in found:
        if isinstance(each, tuple):
            found += each
        elif isinstance(each, (shapes.Type, shapes.Field)) and id(each) not in seen:
            seen.add(id(each))
            found += [getattr(each, name) for name in each.__struct_fields__]
            if isinstance(each, shapes.Type):
                yield each


def _problem(part: shapes.Type) -> str:
    """Return why msgspec does not convert to a shape, or an empty text."""
    kind: Any = getattr(part, "cls", None)
    if hasattr(kind, "__pydantic_validator__"):
        return f"{kind.__qualname__} is a class of pydantic"
    if isinstance(part, shapes.CustomType) and not any(_is_kind_of(each, part.cls) for each in _JSON_TYPES):
        return f"no value of JSON is a {part.cls.__qualname__}"
    return ""


def _foreign(constraint: type) -> str:
    """Return why msgspec does not know what ``Annotated`` adds, or an empty text; it ignores what it does not know."""
    origins = {kind.__module__.partition(".")[0] for kind in constraint.__mro__}
    is_foreign = origins & {"annotated_types", "pydantic"} or hasattr(constraint, "__get_pydantic_core_schema__")
    return f"{constraint.__name__} is a constraint of pydantic" if is_foreign else ""


def _is_kind_of(kind: type, other: type) -> bool:
    try:
        return issubclass(kind, other)
    except TypeError:  # a Protocol that cannot be checked
        return False


def _hints_of(part: shapes.Type) -> object:
    """Return the hints of the fields of a class, for what msgspec does not say of them."""
    if isinstance(part, (shapes.DataclassType, shapes.TypedDictType, shapes.NamedTupleType, shapes.StructType)):
        with suppress(Exception):  # msgspec evaluates them in its own way, which may succeed where this fails
            return tuple(typing.get_type_hints(part.cls, include_extras=True).values())
    return None


def _metadata(hint: Any) -> Iterator[object]:
    """Return what ``Annotated`` adds in a hint, or in any of a tuple of hints."""
    found = [hint]
    for each in found:
        found += each if isinstance(each, tuple) else typing.get_args(each)
        yield from getattr(each, "__metadata__", ())


def _exact(shape: shapes.Type) -> frozenset[type]:
    """Return the types whose values need no conversion."""
    if isinstance(shape, shapes.UnionType):
        return frozenset().union(*map(_exact, shape.types))
    plain = next((kinds for form, *kinds in _PLAIN if shape == form), None)
    if plain is not None:
        return frozenset(plain)
    # A tuple is a ``VarTupleType``, a set a ``SetType``.
    if isinstance(shape, shapes.ListType) and shape == shapes.ListType(shape.item_type):
        return frozenset({list} if _is_any(shape.item_type) else ())
    if isinstance(shape, shapes.DictType) and shape == shapes.DictType(shape.key_type, shape.value_type):
        has_names = _is_any(shape.key_type) or shape.key_type == shapes.StrType()
        return frozenset({dict} if has_names and _is_any(shape.value_type) else ())
    return frozenset()


# Without constraints. An int is a float to type checkers, and JSON does not tell one from the other.
_PLAIN: tuple[tuple[Any, ...], ...] = (
    (shapes.IntType(), int),
    (shapes.FloatType(), float, int),
    (shapes.StrType(), str),
    (shapes.BoolType(), bool),
    (shapes.NoneType(), type(None)),
)


def _is_any_value(shape: shapes.Type, hint: Any) -> bool:
    """Whether a hint takes any value, as it comes."""
    return isinstance(shape, shapes.AnyType) or hint is object


def _is_any(shape: shapes.Type) -> bool:
    return isinstance(shape, shapes.AnyType) or (isinstance(shape, shapes.CustomType) and shape.cls is object)
