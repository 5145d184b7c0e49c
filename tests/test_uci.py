"""UCI text against what the real parser made of it, and against itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import uci

# What `uci export` made of these texts (or refused): quoting in the first file, statements on one line in the second.
VECTORS = [
    vector
    for name in ("uci-vectors.json", "uci-statement-vectors.json")
    for vector in json.loads((Path(__file__).parent / "data" / name).read_text())
]

NAMES = st.text("abAB09_", min_size=1, max_size=3)
VALUES = st.text(
    st.one_of(
        st.sampled_from("ab \t\n\r\\'\"#;=\u00a0é☃"), st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    )
)


def accepted(text: str) -> str | None:
    try:
        return uci.export(uci.parse(text), "t")
    except uci.UciError:
        return None


def options(draw: st.DrawFn) -> list[uci.Option]:
    drawn = draw(
        st.dictionaries(NAMES, st.one_of(VALUES.filter(bool), st.lists(VALUES, min_size=1, max_size=3)), max_size=4)
    )
    return [
        uci.Option(name, (value,), (0,))
        if isinstance(value, str)
        else uci.Option(name, tuple(value), (0,) * len(value), is_list=True)
        for name, value in drawn.items()
    ]


@st.composite
def documents(draw: st.DrawFn) -> uci.Document:
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    kinds = st.text("abAB09_-.", min_size=1, max_size=4)
    return uci.Document(
        tuple(uci.Section(draw(kinds), draw(st.sampled_from([name, None])), tuple(options(draw)), 0) for name in names)
    )


def plain(document: uci.Document) -> list[object]:
    """The document without its lines."""
    return [
        (section.type, section.name, [(o.name, o.values, o.is_list) for o in section.options])
        for section in document.sections
    ]


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_every_text_is_read_as_the_real_parser_reads_it(vector: dict[str, str | None]) -> None:
    """A recorded text is rejected where `uci export` rejected it, and exported byte for byte where it did not."""
    assert accepted(str(vector["text"])) == vector["export"]


@given(documents())
def test_what_is_exported_is_read_back(document: uci.Document) -> None:
    """Whatever names and values a document has, its export parses to the same document."""
    assert plain(uci.parse(uci.export(document, "t"))) == plain(document)


@given(st.text("config list option ab'\"\\#;\n\t\r"))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    """No text breaks the parser: it is a document or an error on one of its lines."""
    document, errors = uci.read(text)
    assert all(1 <= (error.line or 0) <= text.count("\n") + 1 for error in errors)
    if not errors:
        assert plain(uci.parse(uci.export(document, "t"))) == plain(document)


def test_everything_knows_its_line() -> None:
    """Sections, options and each value of a list bear the line they begin on, after values of several lines too."""
    first = "# c\nconfig a 'n'\n\toption o 'one\ntwo'\n\tlist l 1\n\n\tlist l 2\n"
    (section,) = uci.parse(first + "config a n\n\toption p \\\n3\n\toption q 4\n").sections
    assert section.line == 2
    assert [(option.name, option.lines) for option in section.options] == [
        ("o", (3,)),
        ("l", (5, 7)),
        ("p", (9,)),
        ("q", (11,)),
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("config a\n\toption o 1 2\n", 2, "'2' is one word too many"),
        ("config a\n\n\tfoo o 1\n", 3, "'foo' is no keyword"),
        ("config a\n\toption o 'x\n\n\n", 2, "never closed"),
        ("\noption o 1\n", 2, "option 'o' before any section"),
        ("config a 'x'\nconfig b 'x'\n", 2, "'x' is taken by a section of type 'a' on line 1"),
        ("config a 'bad-name'\n", 1, "'bad-name' is no section name"),
        ("config a\n\tlist bad-name 1\n", 2, "'bad-name' is no list name"),
        ("config é\n", 1, "'é' is no section type"),
        ("config\n", 1, "config needs a type"),
        ("\ufeffconfig a\n", 1, "byte-order mark"),
        ("config a\n\toption o '\0'\n", 2, "NUL"),
        ("config a\n\toption o 'x';\n", 2, "another statement must follow"),
    ],
)
def test_an_error_names_line_and_thing(text: str, line: int, words: str) -> None:
    """What is wrong is said with its line and the text that is wrong."""
    with pytest.raises(uci.UciError) as caught:
        uci.parse(text)
    assert caught.value.line == line
    assert words in caught.value.text


def test_all_errors_are_found_at_once() -> None:
    """Reading goes on after a mistake, and a section that is not understood takes its options with it."""
    document, errors = uci.read("config a b c\n\toption lost 1\nconfig d\n\toption o 1 2\n\toption p 1\nfoo\n")
    assert [error.line for error in errors] == [1, 4, 6]
    assert plain(document) == [("d", None, [("p", ("1",), False)])]


def test_a_semicolon_after_a_quoted_word_begins_another_statement() -> None:
    """`option a 'x'; option b 'y'` sets both, as the real parser does; after a bare word the rest is lost."""
    assert (
        accepted("config t\n\toption a 'x'; option b 'y'\n")
        == "package t\n\nconfig t\n\toption a 'x'\n\toption b 'y'\n\n"
    )
    assert accepted("config t\n\toption a x; option b 'y'\n") == "package t\n\nconfig t\n\toption a 'x'\n\n"


def test_sections_are_found_as_uci_names_them() -> None:
    """A section has a name, or a place among those of its type, counted from either end."""
    document = uci.parse("config a\n\toption o 1\nconfig a 'n'\nconfig b\nconfig a\n\toption o 2\n")
    found = [document.find(where) for where in ("@a[0]", "n", "@a[-1]", "@a[3]", "@c[0]", "nobody")]
    assert [section.line if section else None for section in found] == [1, 3, 5, None, None, None]


COMMENTED = """\
# the gateway
config gateway 'gateway'
	option node 'a'   # its name
	option token 'x.y' # once
	list label 'one'

# the rest
config gateway 'other'
	option token 'kept'
"""


def test_an_option_is_removed_and_all_else_stays() -> None:
    """Wiping the token leaves comments, blank lines and the same option of other sections as they were."""
    wiped = uci.set_option(COMMENTED, "gateway", "token", None)
    assert wiped == COMMENTED.replace("\toption token 'x.y' # once\n", "\t# once\n")
    assert uci.set_option(wiped, "@gateway[0]", "token", None) == wiped


def test_an_option_is_changed_in_its_place() -> None:
    """A new value stands where the old one stood, quoted, with the comment behind it."""
    changed = uci.set_option(COMMENTED, "gateway", "node", "it's")
    assert changed == COMMENTED.replace("'a'   # its", "'it'\\''s'   # its")


def test_an_option_that_was_not_there_ends_its_section() -> None:
    """A new option goes behind the last one of its section, also in a file that ends without a newline."""
    assert uci.set_option(COMMENTED, "gateway", "zone", "z").splitlines()[5] == "\toption zone 'z'"
    assert uci.set_option("config a 'b'", "b", "o", "1") == "config a 'b'\n\toption o '1'\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("config a 'n'\n\toption x 1\nconfig a 'n'\n\toption x 2\n", "config a 'n'\nconfig a 'n'\n"),
        ("config a 'n'; option x '1'; option y '2'\n", "config a 'n'; option y '2'\n"),
        ("config a 'n'\n\toption y '2'; option x '1' # c\n", "config a 'n'\n\toption y '2' # c\n"),
        ("config a 'n'\n\toption x 1; lost\n\tlist x 2\n", "config a 'n'\n"),
        ("config a 'n'\n\toption x 'one\ntwo' \\\n\n\toption y 1\n", "config a 'n'\n\toption y 1\n"),
    ],
)
def test_no_trace_of_a_removed_option_is_left(text: str, expected: str) -> None:
    """However often and in whatever form an option was set, removing it removes every one of its values."""
    assert uci.set_option(text, "n", "x", None) == expected


@given(documents().filter(lambda document: document.sections), st.data())
def test_setting_an_option_changes_nothing_else(document: uci.Document, data: st.DataObject) -> None:
    """In any document the option has the new value (or is gone), and every other section and option is the same."""
    index = data.draw(st.integers(0, len(document.sections) - 1))
    section = document.sections[index]
    name = data.draw(st.sampled_from([option.name for option in section.options] + ["new"]))
    value = data.draw(st.none() | VALUES.filter(bool))
    earlier = sum(other.type == section.type for other in document.sections[:index])
    where = section.name or f"@{section.type}[{earlier}]"
    expected = [option for option in section.options if option.name != name]
    if value is not None:
        place = next((at for at, option in enumerate(section.options) if option.name == name), len(expected))
        expected.insert(place, uci.Option(name, (value,), (0,)))
    sections = list(document.sections)
    sections[index] = replace(section, options=tuple(expected))
    assert plain(uci.parse(uci.set_option(uci.export(document, "t"), where, name, value))) == plain(
        uci.Document(tuple(sections))
    )


@pytest.mark.parametrize(
    ("section", "option", "value"), [("nobody", "o", "1"), ("n", "bad-name", "1"), ("n", "o", "a\0b")]
)
def test_what_uci_cannot_hold_is_not_written(section: str, option: str, value: str) -> None:
    """A section that is not there, a name and a value that UCI has no form for are refused."""
    with pytest.raises(uci.UciError):
        uci.set_option("config a 'n'\n", section, option, value)
