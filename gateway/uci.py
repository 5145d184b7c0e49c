"""UCI text, read and written the way OpenWrt's own parser does it, with the line of everything.

A line holds statements: `config TYPE [NAME]`, `option NAME VALUE`, `list NAME VALUE` or `package NAME`. Words are built
of bare, `'single'` and `"double"` quoted parts that touch; a backslash escapes outside single quotes and joins lines;
quoted parts may span lines; `#` begins a comment. After a quoted word `;` begins another statement; after a bare one
the real parser loses the rest of the line, and so does this one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# The C library's isspace(): never str.isspace(), which would split values at a no-break space.
_SPACE = " \t\n\v\f\r"
_KEYWORDS = {word[:size]: word for word in ("package", "config", "option", "list") for size in (1, len(word))}
_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_PACKAGE = re.compile(r"[A-Za-z0-9_-]+\Z")
_TYPE = re.compile(r"[!-~]+\Z")
_INDEXED = re.compile(r"@(?P<type>[!-~]+)\[(?P<index>-?[0-9]+)\]\Z")


class UciError(ValueError):
    """Text that is no UCI file; `line` counts from 1 and is None when no line is to blame."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text if line is None else f"line {line}: {text}")
        self.text = text
        self.line = line


@dataclass(frozen=True, slots=True)
class Option:
    """An option (one value) or a list (any number), and the line of each value."""

    name: str
    values: tuple[str, ...]
    lines: tuple[int, ...]
    is_list: bool = False

    @property
    def line(self) -> int:
        return self.lines[0]


@dataclass(frozen=True, slots=True)
class Section:
    """A section; `name` is None for an anonymous one. Sections of the same name in the text are one section here."""

    type: str
    name: str | None
    options: tuple[Option, ...]
    line: int

    def get(self, name: str) -> Option | None:
        return next((option for option in self.options if option.name == name), None)


@dataclass(frozen=True, slots=True)
class Document:
    """The sections of one file in order."""

    sections: tuple[Section, ...]

    def find(self, where: str) -> Section | None:
        """The section that `uci` would mean by `where`: a name, or `@type[index]` with negative ones from the end."""
        index = _index_of([(section.type, section.name) for section in self.sections], where)
        return None if index is None else self.sections[index]


def parse(text: str) -> Document:
    """The sections of a UCI text; raises UciError for the first thing that the real parser would reject it for."""
    document, errors = read(text)
    if errors:
        raise errors[0]
    return document


def read(text: str) -> tuple[Document, list[UciError]]:
    """What can be understood of a UCI text, and everything that is wrong with it."""
    errors: list[UciError] = []
    sections = _collect(text, errors)
    return Document(tuple(section.freeze() for section in sections)), errors


def export(document: Document, package: str) -> str:
    """What `uci export PACKAGE` prints for this document."""
    return f"package {package}\n\n" + "".join(_export_section(section) for section in document.sections)


def set_option(text: str, section: str, option: str, value: str | None) -> str:
    """The text with this option set to `value`, or without it if None; comments and everything else stay as they are.

    `section` is a name or `@type[index]`. A list of that name is replaced. Raises UciError for a text that does not
    parse, a section that is not there, and a name or value that UCI cannot hold.
    """
    if not _NAME.match(option):
        raise UciError(f"{option!r} is no option name: letters, digits and _ only")
    if value is not None and "\0" in value:
        raise UciError(f"the value of {option} has a NUL character, which UCI cannot hold")
    while True:
        target = _target(text, section)
        old = [statement for statement in target.statements if statement.words[0] == option]
        if len(old) < 2:
            break
        text = _remove(text, old[-1])
    if value is None:
        return _remove(text, old[0]) if old else text
    assigned = f"option {option} {quote(value)}"
    if old:
        return text[: old[0].start] + assigned + text[old[0].end :]
    return _insert_after(text, (target.header, *target.statements)[-1], assigned)


def quote(value: str) -> str:
    """A value as one UCI word in single quotes."""
    return "'" + value.replace("'", "'\\''") + "'"


# --- from text to statements ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Statement:
    keyword: str
    words: tuple[str, str]  # what follows the keyword; "" where nothing does
    line: int
    start: int  # offsets in the text: keyword and words
    end: int
    row: tuple[int, int] = (0, 0)  # the lines it stands on, with the last newline
    before: int | None = None  # end of the statement before it on the same line
    after: int | None = None  # start of the one after it


@dataclass(slots=True)
class _Building:
    type: str
    name: str | None
    header: _Statement
    statements: list[_Statement] = field(default_factory=list)

    def freeze(self) -> Section:
        options: dict[str, Option] = {}
        for statement in self.statements:
            (name, value), line = statement.words, statement.line
            earlier = options.get(name)
            if statement.keyword == "list":
                values, lines = (earlier.values, earlier.lines) if earlier else ((), ())
                options[name] = Option(name, (*values, value), (*lines, line), is_list=True)
            elif value:  # an empty value changes nothing, not even an earlier one
                options[name] = Option(name, (value,), (line,))
        return Section(self.type, self.name, tuple(options.values()), self.header.line)


class _Reader:
    """A cursor over the text that yields words; `line` is the line it stands on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.word_end = 0  # where the last word ended that took any characters
        self.goes_on = False  # whether another statement must follow the last word on its line

    def char(self) -> str:
        """The character under the cursor, "" at the end of the text."""
        return self.text[self.at : self.at + 1]

    def step(self) -> str:
        char = self.char()
        self.at += len(char)
        self.line += char == "\n"
        return char

    def skip(self, blanks: str) -> None:
        """Over these characters, never over a newline."""
        while self.char() and self.char() in blanks and self.char() != "\n":
            self.at += 1

    def skip_row(self) -> None:
        """Behind the end of this line."""
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end + 1
        self.line += end >= 0

    def keyword(self) -> str:
        start = self.at
        while self.char() and self.char() not in " \t\n":
            self.at += 1
        return self.text[start : self.at]

    def word(self) -> str:
        """The next word, "" where the statement ends; raises UciError for a quote that is never closed."""
        self.skip(_SPACE)
        start = self.at
        self.goes_on = self.char() == ";"
        word = self._parts()
        if self.goes_on:
            self.at += 1
        elif self.char() == ";" and self.at - start == len(word):
            self.at = _row_end(self.text, self.at)
        if self.at > start:
            self.word_end = self.at
        return word

    def _parts(self) -> str:
        parts: list[str] = []
        while self.char() and self.char() not in _SPACE and self.char() not in "#;":
            char = self.step()
            if char == "\\":
                parts.append(self._escaped())
            elif char in "'\"":
                parts.append(self._quoted(char))
            else:
                parts.append(char)
        return "".join(parts)

    def _escaped(self) -> str:
        if self.text.startswith("\r\n", self.at):
            self.at += 1
        char = self.step()
        return "" if char == "\n" else char

    def _quoted(self, mark: str) -> str:
        opened = self.line
        parts: list[str] = []
        while self.char():
            char = self.step()
            if char == mark:
                return "".join(parts)
            parts.append(self._escaped() if char == "\\" and mark == '"' else char)
        raise UciError(f"the quote {mark} is never closed", opened)


def _row_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _statements(text: str, errors: list[UciError]) -> Iterator[_Statement | None]:
    """The statements in order; None stands for a wrong one that may have begun a section."""
    nul = text.find("\0")
    if nul >= 0:
        errors.append(UciError("a NUL character: this is no text file", text.count("\n", 0, nul) + 1))
        return
    reader = _Reader(text)
    if text.startswith("\ufeff"):
        errors.append(UciError("the file begins with a byte-order mark: save it as UTF-8 without one", 1))
        reader.at = 1
    while reader.at < len(text):
        start = reader.at
        try:
            yield from _row(reader)
        except UciError as error:
            errors.append(error)
            reader.skip_row()
            if not re.match(r"[ \t]*(o|option|l|list)[ \t]", text[start : reader.at]):
                yield None


def _row(reader: _Reader) -> list[_Statement]:
    start = reader.at
    found: list[_Statement] = []
    reader.skip(_SPACE)
    while reader.char() not in ("", "#") and (found or reader.char() != "\n"):
        statement = _statement(reader)
        if found:
            statement.before, found[-1].after = found[-1].end, statement.start
        found.append(statement)
        if not reader.goes_on:
            break
        reader.skip(" \t")
    reader.skip_row()
    for statement in found:
        statement.row = (start, reader.at)
    return found


def _statement(reader: _Reader) -> _Statement:
    start, line = reader.at, reader.line
    word = reader.keyword()
    if word not in _KEYWORDS:
        text = (
            f"{word!r} is no keyword: a line begins with config, option or list"
            if word
            else "another statement must follow here"
        )
        raise UciError(text, line)
    keyword = _KEYWORDS[word]
    words = (reader.word(), "" if keyword == "package" else reader.word())
    end = reader.word_end
    extra = reader.word()
    _check_words(keyword, words, extra, line)
    if not reader.goes_on and reader.char() not in ("", "\n", "#"):
        # An empty word ('' or joined lines) behind the last one: the real parser looks for a statement behind it.
        reader.goes_on = True
    return _Statement(keyword, words, line, start, end)


def _check_words(keyword: str, words: tuple[str, str], extra: str, line: int) -> None:
    first, second = words
    if not first:
        raise UciError(f"{keyword} needs a {'type' if keyword == 'config' else 'name'}", line)
    if extra:
        raise UciError(f"{extra!r} is one word too many: put a value with blanks in quotes", line)
    if keyword == "config":
        _check(_TYPE, first, "section type: printable ASCII characters without blanks", line)
        _check(_NAME, second or "_", "section name: letters, digits and _ only", line)
    elif keyword == "package":
        _check(_PACKAGE, first, "package name: letters, digits, - and _ only", line)
    else:
        _check(_NAME, first, f"{keyword} name: letters, digits and _ only", line)


def _check(pattern: re.Pattern[str], word: str, rule: str, line: int) -> None:
    if not pattern.match(word):
        raise UciError(f"{word!r} is no {rule}", line)


# --- from statements to sections -----------------------------------------------------------------------------


def _collect(text: str, errors: list[UciError]) -> list[_Building]:
    sections: list[_Building] = []
    named: dict[str, _Building] = {}
    current: _Building | None = None
    lost = False  # the options that follow belong to a section that was not understood
    for statement in _statements(text, errors):
        if statement is None:
            current, lost = None, True
        elif statement.keyword == "config":
            kind, name = statement.words
            current = named.get(name)
            if current is None:
                current = _Building(kind, name or None, statement)
                sections.append(current)
                if name:
                    named[name] = current
            elif current.type != kind:
                first = f"a section of type {current.type!r} on line {current.header.line}"
                errors.append(UciError(f"the name {name!r} is taken by {first}", statement.line))
                current, lost = None, True
        elif statement.keyword != "package" and current is not None:
            current.statements.append(statement)
        elif statement.keyword != "package" and not lost:
            errors.append(UciError(f"{statement.keyword} {statement.words[0]!r} before any section", statement.line))
    return sections


def _index_of(sections: list[tuple[str, str | None]], where: str) -> int | None:
    indexed = _INDEXED.match(where)
    if indexed is None:
        found = [at for at, (_, name) in enumerate(sections) if name == where]
        return found[0] if found else None
    found = [at for at, (kind, _) in enumerate(sections) if kind == indexed["type"]]
    index = int(indexed["index"])
    return found[index] if -len(found) <= index < len(found) else None


# --- back to text --------------------------------------------------------------------------------------------


def _export_section(section: Section) -> str:
    # The type stands bare, as `uci export` writes it: one with quotes, a backslash, # or ; in it cannot be read back.
    head = f"config {quote(section.type)[1:-1]}" + (f" {quote(section.name)}" if section.name else "")
    lines = [
        f"\t{'list' if option.is_list else 'option'} {option.name} {quote(value)}\n"
        for option in section.options
        for value in option.values
    ]
    return f"{head}\n{''.join(lines)}\n"


def _target(text: str, where: str) -> _Building:
    errors: list[UciError] = []
    sections = _collect(text, errors)
    if errors:
        raise errors[0]
    index = _index_of([(section.type, section.name) for section in sections], where)
    if index is None:
        raise UciError(f"there is no section {where!r}")
    return sections[index]


def _remove(text: str, statement: _Statement) -> str:
    if statement.after is not None:
        return text[: statement.start] + text[statement.after :]
    if statement.before is not None:
        return text[: statement.before] + text[statement.end :]
    start, end = statement.row
    comment = re.search(r"#[^\n]*\n?", text[statement.end : end])
    kept = text[start : statement.start] + comment[0] if comment else ""
    return text[:start] + kept + text[end:]


def _insert_after(text: str, statement: _Statement, assigned: str) -> str:
    head, end = text[: statement.end], statement.row[1]
    if head.endswith("\\"):
        head += "\n"  # it ends the text; what follows must not be joined to it
    if statement.after is not None:
        return f"{head}\n\t{assigned}\n{text[statement.after :]}"
    comment = re.search(r"[ \t]*#[^\n]*", text[statement.end : end])
    return f"{head}{comment[0] if comment else ''}\n\t{assigned}\n{text[end:]}"
