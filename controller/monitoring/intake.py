"""Accepts the reports of nodes: signature, name, order, then the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller.monitoring.order import Order, compare
from controller.store import Store
from gateway.protocol import codec, names
from gateway.protocol.errors import MessageError, ProtocolError
from gateway.protocol.keys import Packet
from gateway.protocol.messages import NodeReport


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a report: `report` when it is the node's newest, else `problem`; neither when it came before."""

    report: NodeReport | None = None
    problem: str = ""


class Intake:
    """Judges and stores reports; calls block. `verify` gives the packet or raises ProtocolError."""

    def __init__(self, network: names.Network, store: Store, verify: Callable[[bytes], Packet]) -> None:
        self._network, self._store, self._verify = network, store, verify

    def accept(self, node: str, wire: bytes, now: float) -> Verdict:
        """Takes the answer to the question for a node's report; `now` is Unix time. Bad ones become its problem."""
        try:
            packet = self._verify(wire)
            report = self._read(node, packet)
        except ProtocolError as error:
            return self._refuse(node, str(error))
        return self._judge(node, report, packet.content, now)

    def missed(self, node: str, reason: str) -> Verdict:
        """Records that a node's report did not come."""
        return self._refuse(node, reason)

    def _read(self, node: str, packet: Packet) -> NodeReport:
        if not packet.name.startswith(self._network.report(node)):
            raise MessageError(f"{names.to_uri(packet.name)} is no report of {node}")
        report = codec.decode(NodeReport, packet.content)
        if report.node != node:
            raise MessageError(f"{names.to_uri(packet.name)} speaks for {report.node!r}, not for {node!r}")
        return report

    def _judge(self, node: str, report: NodeReport, content: bytes, now: float) -> Verdict:
        row = self._store.node(node)
        if row is None:
            return Verdict(problem=f"{node} is not enrolled")
        boots = self._store.boots(node) if report.boot_id != row.boot_id else ()
        order = compare(report.boot_id, report.sequence, row.boot_id, row.sequence, boots)
        if order is Order.OLDER:
            text = f"an older report came again (boot {report.boot_id}, sequence {report.sequence})"
            return self._refuse(node, text)
        if order is Order.SAME:
            return Verdict()
        self._store.save_report(node, report.boot_id, report.sequence, content, now)
        return Verdict(report)

    def _refuse(self, node: str, problem: str) -> Verdict:
        self._store.set_problem(node, problem)
        return Verdict(problem=problem)


def stored_reports(store: Store) -> dict[str, NodeReport]:
    """The newest report of every node that ever sent one; what cannot be read any more is left out."""
    reports = {}
    for row in store.nodes():
        if row.report is not None:
            try:
                reports[row.name] = codec.decode(NodeReport, row.report)
            except MessageError as error:
                store.set_problem(row.name, f"its stored report cannot be read: {error}")
    return reports
