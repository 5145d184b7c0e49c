"""A UCI section as a frozen dataclass: each field names the reader of its option and its default.

    @dataclass(frozen=True, slots=True)
    class Link:
        uri: str = option(options.face_uri, "")
        interval_s: float = option(options.seconds, 30.0, "interval")

Nothing here stops at the first mistake: everything wrong in a file is reported at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from gateway import uci
from gateway.options import did_you_mean

T = TypeVar("T")

MAX_FILE_BYTES = 1 << 20  # a file of a thousand neighbors has a tenth of it


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a configuration file; a warning leaves the configuration usable."""

    severity: str  # "error" or "warning"
    path: Path
    line: int | None
    option: str | None  # as `uci` names it: section.option
    text: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else f"{self.path}"
        return f"{place}: {self.severity}: {self.option + ': ' if self.option else ''}{self.text}"


class Problems:
    """Collects what is wrong in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[Problem] = []

    def error(self, text: str, line: int | None = None, option: str | None = None) -> None:
        self.found.append(Problem("error", self.path, line, option, text))

    def warning(self, text: str, line: int | None = None, option: str | None = None) -> None:
        self.found.append(Problem("warning", self.path, line, option, text))

    @property
    def fatal(self) -> bool:
        return any(problem.severity == "error" for problem in self.found)

    def about(self, option: str) -> bool:
        """Whether something is wrong with this option already."""
        return any(problem.option == option for problem in self.found)

    def in_order(self) -> list[Problem]:
        """By line; what belongs to no line first."""
        return sorted(self.found, key=lambda problem: problem.line or 0)


# --- the table -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    read: Callable[[str], Any]
    name: str | None
    many: bool
    secret: bool


class SettingsClass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


S = TypeVar("S", bound=SettingsClass)


def option(read: Callable[[str], T], default: T, name: str | None = None, *, secret: bool = False) -> T:
    """A field read from the option of its own name, or from `name`; a secret's value is never quoted in an error."""
    return _field(_Entry(read, name, many=False, secret=secret), default)


def options(read: Callable[[str], T], default: tuple[T, ...], name: str | None = None) -> tuple[T, ...]:
    """A field read from a UCI list."""
    return _field(_Entry(read, name, many=True, secret=False), default)


def _field(entry: _Entry, default: T) -> T:
    # A Field stands in the class body where its value will be; dataclasses types its own field() in the same way.
    made: T = dataclasses.field(default=default, metadata={"option": entry})
    return made


def entries(kind: type[SettingsClass]) -> dict[str, tuple[str, _Entry]]:
    """Option name -> (field, how to read it)."""
    table = {}
    for each in kind.__dataclass_fields__.values():
        entry: _Entry | None = each.metadata.get("option")
        if entry is not None:
            table[entry.name or each.name] = (each.name, entry)
    return table


def read_section(kind: type[S], section: uci.Section, where: str, problems: Problems, **fixed: Any) -> S:
    """The dataclass of one section; a value that cannot be read is reported and its default taken instead."""
    table = entries(kind)
    values: dict[str, Any] = dict(fixed)
    for given in section.options:
        place = f"{where}.{given.name}"
        if given.name not in table:
            hint = did_you_mean(given.name, table)
            problems.warning(f"unknown option{hint}; it is ignored", given.line, place)
            continue
        name, entry = table[given.name]
        read = [
            _read(entry, value, line, place, problems)
            for value, line in zip(given.values, given.lines, strict=True)
            if value
        ]
        if entry.many:
            values[name] = tuple(value for value in read if value is not None)
        elif len(read) > 1:
            problems.error(f"takes one value, {len(read)} are given", given.lines[-1], place)
        elif read and read[0] is not None:
            values[name] = read[0]
    return kind(**values)


def _read(entry: _Entry, value: str, line: int, place: str, problems: Problems) -> Any:
    try:
        return entry.read(value)
    except ValueError as error:
        problems.error(str(error) if entry.secret else f"{value!r} {error}", line, place)
        return None


def read_document(path: Path, problems: Problems) -> uci.Document | None:
    """What can be understood of a file; None when it cannot be read at all. Either is then among the problems."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        problems.error(f"cannot be read: {error.strerror or error}")
        return None
    if len(raw) > MAX_FILE_BYTES:
        problems.error(f"is larger than {MAX_FILE_BYTES} bytes: this is no configuration file")
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        problems.error("bytes that are not UTF-8: save the file as UTF-8", raw.count(b"\n", 0, error.start) + 1)
        return None
    document, mistakes = uci.read(text)
    for wrong in mistakes:
        problems.error(wrong.text, wrong.line)
    return document


class File:
    """The sections of a document by type, each with what `uci` calls it: its name, or `@type[index]`."""

    def __init__(self, document: uci.Document, problems: Problems) -> None:
        self.problems = problems
        self.types: dict[str, list[tuple[str, uci.Section]]] = {}
        for section in document.sections:
            same = self.types.setdefault(section.type, [])
            same.append((section.name or f"@{section.type}[{len(same)}]", section))

    def of(self, kind: str) -> list[tuple[str, uci.Section]]:
        """(what `uci` calls it, the section) in order."""
        return self.types.get(kind, [])

    def one(self, kind: str, into: type[S]) -> S:
        """The settings of the only section of a type; the defaults when there is none."""
        for where, section in self.of(kind)[:1]:
            return read_section(into, section, where, self.problems)
        return into()

    def check_types(self, single: Iterable[str], repeated: Iterable[str] = ()) -> None:
        """Reports sections of unknown types, and types that may stand only once."""
        single, known = tuple(single), (*single, *repeated)
        for kind, sections in self.types.items():
            for where, section in sections if kind not in known else ():
                text = f"unknown section type {kind!r}{did_you_mean(kind, known)}; the section is ignored"
                self.problems.warning(text, section.line, where)
            for where, section in sections[1:] if kind in single else ():
                text = f"a second {kind} section; the first is on line {sections[0][1].line}"
                self.problems.error(text, section.line, where)

    def place(self, kind: str, name: str, index: int = 0) -> tuple[int | None, str]:
        """(line, what `uci` calls it) of an option; the section's line where the option is not given."""
        if not self.of(kind):
            return None, f"{kind}.{name}"
        where, section = self.of(kind)[index]
        given = section.get(name)
        return given.line if given else section.line, f"{where}.{name}"

    def given(self, kind: str, name: str) -> uci.Option | None:
        """The option as written in the first section of a type."""
        for _, section in self.of(kind)[:1]:
            return section.get(name)
        return None
