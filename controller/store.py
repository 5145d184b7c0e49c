"""The controller's database: nodes and their reports, tokens, images, services, and the heads that were decided.

Every call is blocking and safe from any thread; the daemon makes them in one worker thread. The commands open the same
database beside the running daemon (SQLite's write-ahead log lets them), so that listings work when it is down.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Select, create_engine, delete, event, func, make_url, or_, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from controller.errors import StoreError
from controller.records import (
    Base,
    BootRow,
    DecisionRow,
    HeadRow,
    LinkHourRow,
    MetaRow,
    NodeHourRow,
    NodeRow,
    PublicationRow,
    ReportRow,
    RevocationRow,
    ServiceRow,
    TokenRow,
)

SCHEMA_VERSION = 1
# A day of reports at the default interval of 30 s; a report of a dozen links has about 1 kB.
HISTORY_PER_NODE = 2880
# Boot ids are remembered so that reports of an earlier boot cannot be replayed; a row has some 40 bytes.
BOOTS_PER_NODE = 1024
HEADS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Decision:
    """One service's section (CBOR) with the notes on its placement (JSON)."""

    service: str
    zone: str
    section: bytes
    notes: str
    decided: float


class Store:
    """The database at a SQLAlchemy URL; raises StoreError when it cannot be opened or is damaged.

    `verify` reads all of it to know that, which takes seconds when the history is long.
    """

    def __init__(self, url: str, verify: bool = True) -> None:
        try:
            self._engine, self.label = _open(url)
        except (SQLAlchemyError, ImportError, ValueError) as error:
            raise StoreError(f"the database {_redacted(url)} does not open: {error}") from error
        try:
            self._check(verify)
        except SQLAlchemyError as error:
            self._engine.dispose()
            raise StoreError(self._explain(error)) from error
        except StoreError:
            self._engine.dispose()
            raise

    def _check(self, verify: bool) -> None:
        with self._engine.begin() as connection:
            if verify and self._engine.dialect.name == "sqlite":
                verdict = connection.execute(text("PRAGMA quick_check(1)")).scalar()
                if verdict != "ok":
                    raise StoreError(_damage(self.label, str(verdict)))
            Base.metadata.create_all(connection)
        found = self.meta("schema", str(SCHEMA_VERSION))
        if found != str(SCHEMA_VERSION):
            raise StoreError(
                f"{self.label}: written by another release (schema {found}, this one has {SCHEMA_VERSION})"
            )
        self.set_meta("schema", str(SCHEMA_VERSION))

    def _explain(self, error: SQLAlchemyError) -> str:
        reason = str(error.__cause__ or error)
        damaged = isinstance(error.__cause__, sqlite3.DatabaseError) and not isinstance(
            error.__cause__, sqlite3.OperationalError | sqlite3.IntegrityError
        )
        return _damage(self.label, reason) if damaged else f"{self.label}: {reason}"

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def session(self) -> Iterator[Session]:
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                yield session
        except SQLAlchemyError as error:
            raise StoreError(self._explain(error)) from error

    def _all(self, query: Any) -> list[Any]:
        with self.session() as session:
            return list(session.scalars(query))

    # --- single values -----------------------------------------------------------------------------------------

    def meta(self, key: str, default: str = "") -> str:
        with self.session() as session:
            row = session.get(MetaRow, key)
            return default if row is None else row.value

    def set_meta(self, key: str, value: str) -> None:
        with self.session() as session:
            session.merge(MetaRow(key=key, value=value))

    # --- nodes and reports -------------------------------------------------------------------------------------

    def nodes(self) -> list[NodeRow]:
        return self._all(select(NodeRow).order_by(NodeRow.name))

    def node(self, name: str) -> NodeRow | None:
        with self.session() as session:
            return session.get(NodeRow, name)

    def add_node(self, name: str, certificate: bytes, now: float) -> None:
        """Enrols a node, or gives an enrolled one its new certificate; its history stays."""
        with self.session() as session:
            _enrol(session, name, certificate, now)

    def revoke_node(self, name: str, key_hash: bytes) -> bool:
        """Forgets a node and its history, and keeps the hash of its key for the heads; False when it was not known."""
        with self.session() as session:
            row = session.get(NodeRow, name)
            if row is None:
                return False
            session.delete(row)
            session.execute(delete(ReportRow).where(ReportRow.node == name))
            session.execute(delete(BootRow).where(BootRow.node == name))
            session.execute(delete(NodeHourRow).where(NodeHourRow.node == name))
            session.execute(delete(LinkHourRow).where(or_(LinkHourRow.source == name, LinkHourRow.destination == name)))
            session.execute(delete(TokenRow).where(TokenRow.node == name))
            session.merge(RevocationRow(key_hash=key_hash, node=name))
            return True

    def revocations(self) -> tuple[bytes, ...]:
        """The SHA-256 of every key name that was revoked, in a fixed order."""
        return tuple(self._all(select(RevocationRow.key_hash).order_by(RevocationRow.key_hash)))

    def boots(self, node: str) -> set[str]:
        """The boot ids that were seen of a node."""
        return set(self._all(select(BootRow.boot_id).where(BootRow.node == node)))

    def save_report(self, node: str, boot_id: str, sequence: int, content: bytes, now: float) -> None:
        """Makes this the node's newest report and adds it to the history, of which the newest are kept."""
        with self.session() as session:
            row = session.get(NodeRow, node)
            if row is None:
                return
            if row.boot_id != boot_id:
                session.merge(BootRow(node=node, boot_id=boot_id, seen=now))
                _trim_boots(session, node)
            row.boot_id, row.sequence, row.received, row.report, row.problem = boot_id, sequence, now, content, ""
            session.add(ReportRow(node=node, boot_id=boot_id, sequence=sequence, received=now, content=content))
            session.flush()
            _trim_history(session, node)

    def set_problem(self, node: str, problem: str) -> None:
        """Records why the last report of a node was missing or refused."""
        with self.session() as session:
            session.execute(update(NodeRow).where(NodeRow.name == node).values(problem=problem))

    def reports_since(self, node: str, since: float) -> list[tuple[float, bytes]]:
        """When each of a node's kept reports was received, and its content, oldest first."""
        own = select(ReportRow.received, ReportRow.content).where(ReportRow.node == node, ReportRow.received >= since)
        with self.session() as session:
            return [(received, content) for received, content in session.execute(own.order_by(ReportRow.id))]

    def history(self, node: str, limit: int = HISTORY_PER_NODE) -> list[ReportRow]:
        """A node's reports, newest first."""
        return self._all(select(ReportRow).where(ReportRow.node == node).order_by(ReportRow.id.desc()).limit(limit))

    # --- enrolment ---------------------------------------------------------------------------------------------

    def add_token(self, token_id: str, node: str, secret: bytes, expires: float) -> None:
        """Stores a token; one that was given out for the same node and not used yet is void from now on."""
        with self.session() as session:
            session.execute(delete(TokenRow).where(TokenRow.node == node, TokenRow.used.is_(None)))
            session.add(TokenRow(id=token_id, node=node, secret=secret, expires=expires))

    def token(self, token_id: str) -> TokenRow | None:
        with self.session() as session:
            return session.get(TokenRow, token_id)

    def use_token(self, token_id: str, public_key: bytes, certificate: bytes, now: float) -> bool:
        """Spends a token on a node's certificate, both or neither; False when it was spent before."""
        with self.session() as session:
            unspent = update(TokenRow).where(TokenRow.id == token_id, TokenRow.used.is_(None))
            if session.execute(unspent.values(used=now, public_key=public_key)).rowcount != 1:  # type: ignore[attr-defined]
                return False
            token = session.get_one(TokenRow, token_id)
            _enrol(session, token.node, certificate, now)
            return True

    # --- repository --------------------------------------------------------------------------------------------

    def publish(self, reference: str, content: bytes, now: float | None = None) -> None:
        moment = time.time() if now is None else now
        with self.session() as session:
            session.merge(PublicationRow(reference=reference, content=content, published=moment))

    def publication(self, reference: str) -> PublicationRow | None:
        with self.session() as session:
            return session.get(PublicationRow, reference)

    def publications(self) -> list[PublicationRow]:
        return self._all(select(PublicationRow).order_by(PublicationRow.reference))

    # --- providers and services --------------------------------------------------------------------------------

    def services(self, active_only: bool = True) -> list[ServiceRow]:
        query = select(ServiceRow).order_by(ServiceRow.name, ServiceRow.version)
        return self._all(query.where(ServiceRow.active) if active_only else query)

    def last_version(self, service: str) -> int:
        """The greatest version that a service ever had, 0 when it is new."""
        with self.session() as session:
            return session.scalar(select(func.max(ServiceRow.version)).where(ServiceRow.name == service)) or 0

    def deploy(self, name: str, version: int, provider: str, wire: bytes, now: float) -> None:
        """Makes this version of the service the one that is to run."""
        with self.session() as session:
            session.execute(update(ServiceRow).where(ServiceRow.name == name).values(active=False))
            row = ServiceRow(name=name, version=version, provider=provider, wire=wire, active=True, deployed=now)
            session.merge(row)

    def undeploy(self, name: str) -> bool:
        """No version of the service is to run; False when none was."""
        with self.session() as session:
            running = update(ServiceRow).where(ServiceRow.name == name, ServiceRow.active)
            return bool(session.execute(running.values(active=False)).rowcount)  # type: ignore[attr-defined]

    # --- decisions ---------------------------------------------------------------------------------------------

    def save_head(
        self, order: tuple[int, int], wire: bytes, issued: float, why: str, decisions: Sequence[Decision]
    ) -> list[bytes]:
        """Stores a head with everything it decides; what it does not mention is decided no more.

        Returns the heads that are so old that they were dropped.
        """
        with self.session() as session:
            session.merge(HeadRow(epoch=order[0], version=order[1], wire=wire, issued=issued, why=why))
            session.execute(delete(DecisionRow))
            session.add_all(_decision_rows(decisions))
            session.flush()
            dropped = list(session.scalars(_newest_heads().offset(HEADS_KEPT)))
            for row in dropped:
                session.delete(row)
            return [row.wire for row in dropped]

    def update_notes(self, decisions: Sequence[Decision]) -> None:
        """Replaces the notes beside decisions that stay as they are."""
        with self.session() as session:
            for decision in decisions:
                own = update(DecisionRow).where(DecisionRow.service == decision.service)
                session.execute(own.where(DecisionRow.zone == decision.zone).values(notes=decision.notes))

    def head(self) -> HeadRow | None:
        """The newest head."""
        return next(iter(self.heads(1)), None)

    def heads(self, limit: int = HEADS_KEPT) -> list[HeadRow]:
        return self._all(_newest_heads().limit(limit))

    def decisions(self) -> list[Decision]:
        rows = self._all(select(DecisionRow).order_by(DecisionRow.service, DecisionRow.zone))
        return [Decision(row.service, row.zone, row.section, row.notes, row.decided) for row in rows]


def _newest_heads() -> Select[HeadRow]:
    return select(HeadRow).order_by(HeadRow.epoch.desc(), HeadRow.version.desc())


def _decision_rows(decisions: Iterable[Decision]) -> list[DecisionRow]:
    return [
        DecisionRow(service=d.service, zone=d.zone, section=d.section, notes=d.notes, decided=d.decided)
        for d in decisions
    ]


def _enrol(session: Session, name: str, certificate: bytes, now: float) -> None:
    row = session.get(NodeRow, name)
    if row is None:
        session.add(NodeRow(name=name, certificate=certificate, enrolled=now))
    else:
        row.certificate, row.enrolled = certificate, now


def _trim_history(session: Session, node: str) -> None:
    own = select(ReportRow.id).where(ReportRow.node == node).order_by(ReportRow.id.desc())
    oldest = session.scalar(own.offset(HISTORY_PER_NODE - 1).limit(1))
    if oldest is not None:
        session.execute(delete(ReportRow).where(ReportRow.node == node, ReportRow.id < oldest))


def _trim_boots(session: Session, node: str) -> None:
    own = select(BootRow.seen).where(BootRow.node == node).order_by(BootRow.seen.desc())
    oldest = session.scalar(own.offset(BOOTS_PER_NODE - 1).limit(1))
    if oldest is not None:
        session.execute(delete(BootRow).where(BootRow.node == node, BootRow.seen < oldest))


def _open(url: str) -> tuple[Engine, str]:
    """An engine, and what messages call the database: its path, or its URL without the password."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True), _redacted(url)
    path = Path(parsed.database or "")
    if not path.exists():
        _create_private(path)
    engine = create_engine(parsed, connect_args={"timeout": 10.0})
    event.listen(engine, "connect", _configure)
    return engine, str(path)


def _create_private(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; run `picasso-controller init` first") from error


def _configure(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    # NORMAL survives a crash of the program; FULL also keeps the last decision through a power cut.
    connection.execute("PRAGMA synchronous=FULL")


def _redacted(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "whose URL cannot be read"


def _damage(label: str, reason: str) -> str:
    return (
        f"{label}: the database is damaged ({reason}). Move it away together with its -wal and -shm files, "
        "put a backup in its place and run `picasso-controller epoch --raise`, so that gateways accept heads again"
    )
