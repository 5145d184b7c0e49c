"""What people see of an emulation and what they may type."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.emulation import table
from tests.emulation.network import Traffic
from tests.emulation.table import Command, Frame, GatewayView
from tests.emulation.topology import Link

ONE, OTHER = Link("a", "b", 8, 16), Link("b", "c", 20, 20)


def shown(frame: Frame) -> list[str]:
    """The lines of a screen."""
    output = io.StringIO()
    Console(file=output, width=120).print(table.render(frame))
    return output.getvalue().splitlines()


def frame(is_up: bool = True, loss: float = 0.0) -> Frame:
    total = {
        ("a", "b"): Traffic(1_500_000, 1000), ("b", "a"): Traffic(200_000, 900),
        ("b", "c"): Traffic(0, 0), ("c", "b"): Traffic(0, 0),
    }  # fmt: skip
    views = [
        GatewayView("a", "", 1.0),
        GatewayView("c", "a", 0.25, blobs=3, wants=2),
        GatewayView("d", "a", 0, is_silent=True),
    ]
    return Frame(
        (ONE, OTHER),
        {ONE: is_up, OTHER: True},
        {ONE: loss, OTHER: 0},
        total,
        {("a", "b"): 4.0},
        views,
        12,
        "hello",
        "f",
    )


def test_link_line_has_rate_use_and_bytes() -> None:
    """Half of 8 Mbit/s is half a bar; bytes in both directions are in MB."""
    line = next(line for line in shown(frame()) if " a " in line and " b " in line)
    assert line.split()[:5] == ["0", "a", "b", "up", "8"]
    assert "4.0" in line and "██████······" in line and "1.5" in line and "0.2" in line


@pytest.mark.parametrize(("is_up", "loss", "word"), [(False, 0.0, "down"), (True, 0.05, "loses 5%")])
def test_state_of_a_link_is_told(is_up: bool, loss: float, word: str) -> None:
    """A link that is down or loses packets says so."""
    assert any(word in line for line in shown(frame(is_up, loss)))


def test_gateways_show_their_progress() -> None:
    """The image's share, blobs and wants of each; one that does not answer says that."""
    lines = shown(frame())
    assert "1 of 3 gateways have the image" in lines[0]
    assert any(line.startswith("c") and "25%" in line and "███·" in line for line in lines)
    assert any(line.startswith("d") and "no answer" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("fail 1", Command("fail", 1)),
        ("r 0", Command("recover", 0)),
        ("lo 1 2.5", Command("loss", 1, 0.025)),
        ("deliver", Command("deliver")),
        ("q", Command("quit")),
    ],
)
def test_typed_commands(text: str, command: Command) -> None:
    """The beginning of a word is enough."""
    assert table.parse(text, 2) == command


@pytest.mark.parametrize("text", ["", "f", "fail 2", "fail x", "loss 1", "loss 1 200", "nonsense"])
def test_wrong_commands_say_what_is_accepted(text: str) -> None:
    """Whoever mistypes is told the way out."""
    with pytest.raises(ValueError, match=r"accepted"):
        table.parse(text, 2)
