"""The controller's file."""

from pathlib import Path

import pytest

from controller import settings
from controller.replan import Rules
from gateway.sections import Problems
from gateway.uci import parse


def read(text: str) -> tuple[settings.Settings | None, list[str]]:
    read, problems = settings.parse(parse(text), Problems(Path("picasso-controller")), "Portal.example.org")
    return read, [str(problem) for problem in problems]


def test_the_least_file_is_complete() -> None:
    """One empty section is enough: everything else has a default, files below the state directory."""
    assert read("config controller 'controller'\n") == (
        settings.Settings(
            path=Path("picasso-controller"),
            network="/picasso",
            state_dir=Path("/var/lib/picasso-controller"),
            database="sqlite:////var/lib/picasso-controller/controller.db",
            gateway="unix:///run/picasso/ndn.sock",
            node="portal",
            report_interval_s=30.0,
            decision_lifetime_s=7 * 86400.0,
            repository_dir=Path("/var/lib/picasso-controller/repository"),
            zone="",
        ),
        [],
    )


def test_what_is_set_counts() -> None:
    """Every option is read, and the defaults of files follow the state directory."""
    found, problems = read(
        """\
config controller
	option network '/guifi/sants'
	option state_dir '/srv/c'
	option gateway 'tcp4://10.1.0.2:6363'
	option node 'upc'
	option report_interval '5s'
	option decision_lifetime '2d'
	option repository '/srv/images'
	option zone 'sants'
	option move_gain '20'
	option move_looks '6'
	option move_interval '30m'
	option payback '1h'
	option database 'postgresql+psycopg://u:p@db/picasso'
"""
    )
    assert problems == []
    assert found == settings.Settings(
        path=Path("picasso-controller"),
        network="/guifi/sants",
        state_dir=Path("/srv/c"),
        database="postgresql+psycopg://u:p@db/picasso",
        gateway="tcp4://10.1.0.2:6363",
        node="upc",
        report_interval_s=5.0,
        decision_lifetime_s=2 * 86400.0,
        repository_dir=Path("/srv/images"),
        zone="sants",
        move_gain_percent=20.0,
        move_looks=6,
        move_interval_s=1800.0,
        payback_s=3600.0,
    )
    assert found.rules == Rules(gain=0.2, rounds=6, apart_s=1800.0, payback_s=3600.0)
    assert settings.Settings(Path()).rules == Rules()
    moved, _ = read("config controller\n\toption state_dir '/srv/c'\n")
    assert moved is not None
    assert (moved.database, moved.repository_dir) == ("sqlite:////srv/c/controller.db", Path("/srv/c/repository"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "error: has no section 'controller'"),
        (
            "config controller\n\toption gateway 'ndn.sock'\n",
            "error: @controller[0].gateway: 'ndn.sock' is no face URI",
        ),
        ("config controller 'c'\n\toption database 'secret'\n", "error: c.database: is no database URL"),
        ("config controller 'c'\n\toption decision_lifetime '10s'\n", "error: c.decision_lifetime: is not longer"),
        ("config controller\nconfig controller\n", "error: @controller[1]: a second controller section"),
    ],
)
def test_a_mistake_is_an_error(text: str, problem: str) -> None:
    """What cannot work stops the controller with the option's name; a database URL is never printed."""
    found, problems = read(text)
    assert found is None
    assert problem in problems[0]
    assert "secret" not in problems[0]


def test_an_unknown_option_is_a_warning() -> None:
    """An option that does not exist is named with the one that was probably meant."""
    found, problems = read("config controller 'c'\n\toption databse 'sqlite:///x'\n")
    assert found is not None
    assert problems == [
        "picasso-controller:2: warning: c.databse: unknown option, did you mean 'database'?; it is ignored"
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A controller without a file says which one it looked for."""
    found, problems = settings.load(tmp_path / "none")
    assert found is None
    assert str(problems[0]) == f"{tmp_path}/none: error: cannot be read: No such file or directory"
