"""The history of a network: for each hour quantiles of every link and node, kept for 90 days in the database.

Each hour is made of the reports that were stored in it, once it is over, and replaces whatever was kept of it before: a
restart in between loses nothing and counts nothing twice. Saving a report costs nothing more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import delete, func, insert, select

from controller.monitoring.hour import HOUR_S, Hour, NodeHour, Pair, Quantiles, quantile
from controller.monitoring.network import patience_s
from controller.records import LinkHourRow, NodeHourRow
from controller.store import Store
from gateway.protocol import codec
from gateway.protocol.errors import MessageError
from gateway.protocol.messages import NodeReport

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

KEPT_HOURS = 90 * 24
# Reports stay for a day; hours longer ago than that cannot be made up for.
REPORTED_HOURS = 24
# A row takes some 80 bytes: 90 days of a network with 900 directions, or 18 days of one with 4,600.
LINK_ROWS_MAX = 2_000_000
# Placement counts on what a link falls short of in one hour of ten, over three days: a week's worth of bad evenings
# would hold an improved link down for as long. Less than a quarter of a day says nothing about a link yet.
LOW_SHARE, LOW_HOURS, LOW_HOURS_MIN = 0.1, 72, 6
AVAILABILITY_HOURS = 7 * 24


class History:
    """The hours in a controller's database. Calls block."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # With the hour for which they hold: they change only when one is over, and every look asks for them.
        self._rates: tuple[int, dict[Pair, float]] | None = None
        self._shares: tuple[int, dict[str, float]] | None = None

    def keep(self, now: float, interval_s: float) -> Iterator[None]:
        """Makes the hours that are over, node by node: it yields after each, so that others get their turn in between.

        `now` is Unix time, `interval_s` how often nodes are asked.
        """
        present = int(now // HOUR_S)
        hours = range(max(self._newest(present) + 1, present - REPORTED_HOURS), present)
        if not hours:
            return
        from controller.placement.network.reports import weighed

        enrolled = {row.name: row.enrolled for row in self._store.nodes()}
        made = {hour: Hour(hour * HOUR_S, enrolled, interval_s, weighed) for hour in hours}
        # Reports from before the first hour tell who was heard when it began.
        since = hours[0] * HOUR_S - patience_s(interval_s, 10 * interval_s)
        for node in enrolled:
            reports = _readable(self._store.reports_since(node, since))
            for hour in made.values():
                hour.add(node, [(moment, report) for moment, report in reports if moment < hour.end])
            yield
        self._write(made, present)

    def low_rates(self, now: float) -> dict[Pair, float]:
        """For each direction the Mbit/s that its hourly medians fall short of in one hour of ten, over three days.

        Directions that were measured in less than six of these hours are not in it.
        """
        present = int(now // HOUR_S)
        if self._rates is None or self._rates[0] != present:
            query = select(LinkHourRow.source, LinkHourRow.destination, LinkHourRow.median)
            recent = LinkHourRow.hour.between(present - LOW_HOURS, present - 1)
            medians: defaultdict[Pair, list[float]] = defaultdict(list)
            with self._store.session() as session:
                for source, destination, median in session.execute(query.where(recent)):
                    medians[source, destination].append(median)
            low = {p: quantile(found, LOW_SHARE) for p, found in medians.items() if len(found) >= LOW_HOURS_MIN}
            self._rates = present, low
        return self._rates[1]

    def availability(self, now: float) -> dict[str, float]:
        """For each node the share of the last seven days in which it was heard, or of those since it enrolled."""
        present = int(now // HOUR_S)
        if self._shares is None or self._shares[0] != present:
            recent = NodeHourRow.hour.between(present - AVAILABILITY_HOURS, present - 1)
            self._shares = present, _presence(self._store, recent)
        return self._shares[1]

    def _newest(self, present: int) -> int:
        """The last hour that was kept; one that is still to come, by a clock that was wrong, does not count."""
        with self._store.session() as session:
            newest = session.scalar(select(func.max(NodeHourRow.hour)).where(NodeHourRow.hour < present))
        return -1 if newest is None else newest

    def _write(self, made: dict[int, Hour], present: int) -> None:
        links = [_link_row(at, *row) for at, hour in made.items() for row in hour.links().items()]
        nodes = [_node_row(at, *row) for at, hour in made.items() for row in hour.nodes().items()]
        with self._store.session() as session:
            for table, rows in ((LinkHourRow, links), (NodeHourRow, nodes)):
                session.execute(delete(table).where(table.hour >= min(made)))
                session.execute(delete(table).where(table.hour < present - KEPT_HOURS))
                if rows:
                    session.execute(insert(table), rows)
            newest_first = select(LinkHourRow.hour).order_by(LinkHourRow.hour.desc())
            surplus = session.scalar(newest_first.offset(LINK_ROWS_MAX).limit(1))
            if surplus is not None:
                session.execute(delete(LinkHourRow).where(LinkHourRow.hour <= surplus))
        self._rates = self._shares = None


class LinkSeries(NamedTuple):
    """A direction of a link by the hour (Unix time / 3600), oldest first; quantiles in Mbit/s, each of shape (h,)."""

    hours: npt.NDArray[np.int64]
    q10: npt.NDArray[np.float64]
    q50: npt.NDArray[np.float64]
    q90: npt.NDArray[np.float64]


def series(store: Store) -> tuple[dict[Pair, LinkSeries], dict[str, float]]:
    """All that is kept: each direction's hours, and the share of the time that each node was heard."""
    import numpy as np

    rows: defaultdict[Pair, list[tuple[float, ...]]] = defaultdict(list)
    columns = (LinkHourRow.hour, LinkHourRow.low, LinkHourRow.median, LinkHourRow.high)
    with store.session() as session:
        query = select(LinkHourRow.source, LinkHourRow.destination, *columns).order_by(LinkHourRow.hour)
        for source, destination, *figures in session.execute(query):
            rows[source, destination].append(tuple(figures))
    links = {}
    for pair, found in rows.items():
        hours, q10, q50, q90 = np.array(found, dtype=np.float64).T
        links[pair] = LinkSeries(hours.astype(np.int64), q10, q50, q90)
    return links, _presence(store, NodeHourRow.hour >= 0)


def _presence(store: Store, recent: Any) -> dict[str, float]:
    """The mean presence of each node over some hours."""
    query = select(NodeHourRow.node, func.avg(NodeHourRow.presence)).where(recent).group_by(NodeHourRow.node)
    with store.session() as session:
        found = session.execute(query.order_by(NodeHourRow.node))
        return {node: float(share) for node, share in found}


def _readable(reports: Iterable[tuple[float, bytes]]) -> list[tuple[float, NodeReport]]:
    """What an earlier release stored and this one cannot read is left out."""
    found = []
    for moment, content in reports:
        try:
            found.append((moment, codec.decode(NodeReport, content)))
        except MessageError:
            continue
    return found


def _link_row(hour: int, pair: Pair, figure: Quantiles) -> dict[str, Any]:
    rates = {"low": figure.low, "median": figure.median, "high": figure.high}
    return {"hour": hour, "source": pair[0], "destination": pair[1], "samples": figure.samples} | rates


def _node_row(hour: int, node: str, heard: NodeHour) -> dict[str, Any]:
    row: dict[str, Any] = {"hour": hour, "node": node, "presence": heard.presence, "reports": heard.reports}
    for what, figure in (("free_cpu", heard.free_cpu_percent), ("free_memory", heard.free_memory_bytes)):
        for at in ("low", "median", "high"):
            row[f"{what}_{at}"] = getattr(figure, at, None)
    return row
