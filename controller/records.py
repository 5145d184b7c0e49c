"""The tables of the controller's database."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class MetaRow(Base):
    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(String, primary_key=True)
    value: Mapped[str]


class NodeRow(Base):
    """An enrolled node, and the newest report that was accepted from it; times are Unix time of this machine."""

    __tablename__ = "node"
    name: Mapped[str] = mapped_column(String, primary_key=True)
    certificate: Mapped[bytes]
    enrolled: Mapped[float]
    boot_id: Mapped[str | None]
    sequence: Mapped[int] = mapped_column(default=0)
    received: Mapped[float | None]
    report: Mapped[bytes | None]
    problem: Mapped[str] = mapped_column(default="")


class BootRow(Base):
    __tablename__ = "boot"
    node: Mapped[str] = mapped_column(String, primary_key=True)
    boot_id: Mapped[str] = mapped_column(String, primary_key=True)
    seen: Mapped[float]


class ReportRow(Base):
    __tablename__ = "report"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    node: Mapped[str] = mapped_column(String, index=True)
    boot_id: Mapped[str]
    sequence: Mapped[int]
    received: Mapped[float]
    content: Mapped[bytes]


class LinkHourRow(Base):
    """What one direction of a link could carry in one hour (Unix time / 3600): three quantiles of Mbit/s."""

    __tablename__ = "link_hour"
    __table_args__ = ({"sqlite_with_rowid": False},)
    hour: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(String, primary_key=True)
    destination: Mapped[str] = mapped_column(String, primary_key=True)
    samples: Mapped[int]
    low: Mapped[float]
    median: Mapped[float]
    high: Mapped[float]


class NodeHourRow(Base):
    """How much of an hour a node was heard (0 to 1), and quantiles of what it had to spare, if it said so."""

    __tablename__ = "node_hour"
    __table_args__ = ({"sqlite_with_rowid": False},)
    hour: Mapped[int] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(String, primary_key=True)
    presence: Mapped[float]
    reports: Mapped[int]
    free_cpu_low: Mapped[float | None]
    free_cpu_median: Mapped[float | None]
    free_cpu_high: Mapped[float | None]
    free_memory_low: Mapped[float | None]
    free_memory_median: Mapped[float | None]
    free_memory_high: Mapped[float | None]


class TokenRow(Base):
    """A token that was given out. Its secret is the key of an HMAC, so it cannot be stored hashed."""

    __tablename__ = "token"
    id: Mapped[str] = mapped_column(String, primary_key=True)
    node: Mapped[str]
    secret: Mapped[bytes]
    expires: Mapped[float]
    used: Mapped[float | None]
    public_key: Mapped[bytes | None]


class RevocationRow(Base):
    """A key that is not to be trusted any more: the SHA-256 of its name."""

    __tablename__ = "revocation"
    key_hash: Mapped[bytes] = mapped_column(primary_key=True)
    node: Mapped[str]


class PublicationRow(Base):
    """An image (`manifest` and the blobs it names) or a file (`manifest` is the file) in the repository, as CBOR."""

    __tablename__ = "publication"
    reference: Mapped[str] = mapped_column(String, primary_key=True)
    content: Mapped[bytes]
    published: Mapped[float]


class ServiceRow(Base):
    """One version of a service; `active` marks the one that is to run. Older ones stay to be served."""

    __tablename__ = "service"
    name: Mapped[str] = mapped_column(String, primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    provider: Mapped[str]
    wire: Mapped[bytes]
    active: Mapped[bool]
    deployed: Mapped[float]


class HeadRow(Base):
    __tablename__ = "head"
    epoch: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    wire: Mapped[bytes]
    issued: Mapped[float]
    why: Mapped[str]


class DecisionRow(Base):
    """What the current head says of one service: its section, and beside it what did not travel (JSON).

    `decided` is when the heads became what they are.
    """

    __tablename__ = "decision"
    service: Mapped[str] = mapped_column(String, primary_key=True)
    zone: Mapped[str] = mapped_column(String, primary_key=True)
    section: Mapped[bytes]
    notes: Mapped[str]
    decided: Mapped[float]
