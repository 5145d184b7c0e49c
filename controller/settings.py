"""The controller's UCI file, /etc/config/picasso-controller, read as the gateway's is."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from controller.replan import Rules
from gateway import options as readers
from gateway import uci
from gateway.sections import File, Problem, Problems, option, read_document, read_section

__all__ = ["Problem", "Settings", "load", "parse"]


def _database(text: str) -> str:
    if not re.match(r"[a-z][a-z0-9]*(\+[a-z0-9_]+)?://", text):
        raise ValueError(
            "is no database URL of SQLAlchemy; write it like sqlite:////var/lib/picasso-controller/controller.db"
        )
    return text


@dataclass(frozen=True, slots=True)
class Settings:
    """All fields are set: what depends on another field gets its default in parse()."""

    path: Path
    network: str = option(readers.ndn_name, "/picasso")
    state_dir: Path = option(readers.directory, Path("/var/lib/picasso-controller"))
    database: str = option(_database, "", secret=True)  # may hold a password; default: SQLite in state_dir
    gateway: str = option(readers.face_uri, "unix:///run/picasso/ndn.sock")
    node: str = option(readers.identifier, "")  # the gateway beside the controller; default: named like the host
    report_interval_s: float = option(readers.seconds, 30.0, "report_interval")
    decision_lifetime_s: float = option(readers.seconds, 7 * 86400.0, "decision_lifetime")
    repository_dir: Path = option(readers.directory, Path(), "repository")  # default: in state_dir
    zone: str = option(readers.identifier, "")  # empty: the whole network
    move_gain_percent: float = option(readers.number(0, 1000), 15.0, "move_gain")
    move_looks: int = option(readers.integer(1, 1000), 4)
    move_interval_s: float = option(readers.seconds, 3600.0, "move_interval")
    payback_s: float = option(readers.seconds, 600.0, "payback")

    @property
    def rules(self) -> Rules:
        """When heads move for bandwidth."""
        return Rules(self.move_gain_percent / 100, self.move_looks, self.move_interval_s, self.payback_s)


def load(path: Path) -> tuple[Settings | None, list[Problem]]:
    """The settings of a file and all that is wrong with it, by line; None in their place if any of that is an error."""
    problems = Problems(path)
    document = read_document(path, problems)
    if document is None:
        return None, problems.in_order()
    return parse(document, problems, socket.gethostname())


def parse(document: uci.Document, problems: Problems, hostname: str) -> tuple[Settings | None, list[Problem]]:
    """As load(), of a document that is already there and its problems."""
    path, understood = problems.path, not problems.fatal
    file = File(document, problems)
    settings = Settings(path)
    for where, section in file.of("controller")[:1]:
        settings = read_section(Settings, section, where, problems, path=path)
    file.check_types(("controller",))
    if understood and not file.of("controller"):
        problems.error("has no section 'controller'; write: config controller 'controller'")
    if settings.decision_lifetime_s <= settings.report_interval_s:
        text = "is not longer than report_interval: every decision would be stale when the next report comes"
        problems.error(text, *file.place("controller", "decision_lifetime"))
    return (None if problems.fatal else _completed(settings, hostname)), problems.in_order()


def _completed(settings: Settings, hostname: str) -> Settings:
    state_dir = settings.state_dir
    return replace(
        settings,
        database=settings.database or f"sqlite:///{state_dir}/controller.db",
        node=settings.node or readers.node_of(hostname),
        repository_dir=state_dir / "repository" if settings.repository_dir == Path() else settings.repository_dir,
    )
