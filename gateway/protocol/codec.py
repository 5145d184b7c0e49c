"""CBOR maps with integer keys for frozen dataclasses: one rule for every message.

A field carries its key in its metadata (`key(3)`); the codec reads the type hints and does the rest.
Unknown keys are ignored, so that a newer sender is understood; a missing key takes the field's default;
a wrong type or a missing required key raises MessageError, which names message and field.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from gateway.protocol.errors import MessageError

T = TypeVar("T")

# A report of a node with hundreds of neighbours stays far below; whatever is larger is hostile or broken.
MESSAGE_MAX_BYTES = 1 << 20
_INTEGER_LIMIT = 1 << 64


def key(number: int, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that travels under the integer key `number`; the default `dict` is an empty one each time."""
    if default is dict:
        return dataclasses.field(default_factory=dict, metadata={"key": number})
    return dataclasses.field(default=default, metadata={"key": number})


def encode(message: Any) -> bytes:
    """The canonical CBOR of a message: equal messages give equal bytes."""
    import cbor2  # 1 MB, which a forwarder without neighbours never needs

    return cbor2.dumps(_to_plain(message), canonical=True)


def decode(cls: type[T], wire: bytes, max_bytes: int = MESSAGE_MAX_BYTES) -> T:
    """A message of class `cls` from its CBOR; raises MessageError on anything else."""
    if len(wire) > max_bytes:
        raise MessageError(f"{cls.__name__}: {len(wire)} bytes, at most {max_bytes} are accepted")
    import cbor2

    stream = io.BytesIO(wire)
    try:
        plain = cbor2.load(stream)
    except Exception as error:  # cbor2 lets errors of many families through on hostile input
        raise MessageError(f"{cls.__name__}: not CBOR: {error}") from error
    if stream.tell() != len(wire):
        raise MessageError(f"{cls.__name__}: {len(wire) - stream.tell()} bytes after the message")
    return typing.cast(T, _reader(typing.cast(Any, cls))(plain, cls.__name__))


def to_json(message: Any) -> Any:
    """The message as JSON-ready values with its field names; bytes become hex. For people and for the CLI."""
    if dataclasses.is_dataclass(message) and not isinstance(message, type):
        return {f.name: to_json(getattr(message, f.name)) for f in dataclasses.fields(message)}
    if isinstance(message, (tuple, list)):
        return [to_json(item) for item in message]
    if isinstance(message, dict):
        return {str(name): to_json(value) for name, value in message.items()}
    return message.hex() if isinstance(message, bytes) else message


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        plain = {}
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            if item is not None and item != field.default and item != {}:
                plain[field.metadata["key"]] = _to_plain(item)
        return plain
    if isinstance(value, tuple):
        return [_to_plain(item) for item in value]
    return value


Reader = Callable[[Any, str], Any]


@functools.cache
def _reader(hint: Any) -> Reader:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _message_reader(typing.cast(type, hint))
    if origin in (typing.Union, types.UnionType):
        (inner,) = (_reader(a) for a in arguments if a is not type(None))
        return lambda value, where: None if value is None else inner(value, where)
    if origin is tuple:
        return _sequence_reader(_reader(arguments[0]))
    if origin is dict:
        return _mapping_reader(_reader(arguments[0]), _reader(arguments[1]))
    return _scalar_reader(hint)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _message_reader(cls: type) -> Reader:
    hints = typing.get_type_hints(cls)
    fields = [(f.name, f.metadata["key"], _reader(hints[f.name]), _is_required(f)) for f in dataclasses.fields(cls)]

    def read(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise MessageError(f"{where}: a map was expected, not {type(value).__name__}")
        arguments = {}
        for name, number, reader, required in fields:
            if number in value:
                arguments[name] = reader(value[number], f"{where}.{name}")
            elif required:
                raise MessageError(f"{where}.{name}: key {number} is missing")
        return cls(**arguments)

    return read


def _sequence_reader(item: Reader) -> Reader:
    def read(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            raise MessageError(f"{where}: a list was expected, not {type(value).__name__}")
        return tuple(item(element, f"{where}[{index}]") for index, element in enumerate(value))

    return read


def _mapping_reader(name: Reader, item: Reader) -> Reader:
    def read(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise MessageError(f"{where}: a map was expected, not {type(value).__name__}")
        return {name(k, where): item(v, f"{where}[{k!r}]") for k, v in value.items()}

    return read


def _scalar_reader(hint: Any) -> Reader:
    def read(value: Any, where: str) -> Any:
        if hint is float and type(value) is int and abs(value) < _INTEGER_LIMIT:
            value = float(value)
        if type(value) is not hint or (hint is float and value - value != 0.0):
            raise MessageError(f"{where}: {hint.__name__} was expected, not {value!r:.40}")
        if hint is int and not -_INTEGER_LIMIT < value < _INTEGER_LIMIT:
            raise MessageError(f"{where}: the integer is out of range")
        return value

    return read
