"""Why a node cannot be a head of a service whatever its links are: its owner, its processor, crashes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.decisions import Wanted
from controller.monitoring.network import View
from controller.repository.platform import misfit
from gateway.protocol.messages import NodeReport, Section

# Node, service, generation and state: what a node says of a service that it cannot run.
Trouble = tuple[str, str, int, str]


@dataclass(frozen=True, slots=True)
class Obstacles:
    """Nodes with the reason: the image does not run there, the owner refuses it, this version crashes there."""

    misfits: Mapping[str, str]
    refusals: Mapping[str, str]
    crashes: Mapping[str, str]

    @classmethod
    def of(cls, wanted: Wanted, told: Mapping[str, Any], view: View) -> Obstacles:
        """What the reports say, and what they said before this version's last decision, by the notes on that."""
        return cls(
            _misfits(wanted.spec.platform, view.reports),
            _refusals(wanted, told, view.reports),
            _crashes(wanted, told, view),
        )

    @property
    def impossible(self) -> dict[str, str]:
        """The nodes that cannot, wherever else the service crashes."""
        return {**self.misfits, **self.refusals}

    @property
    def all(self) -> dict[str, str]:
        return {**self.crashes, **self.impossible}

    def notes(self) -> dict[str, Any]:
        """What is to be known at the next look, and may be in no report by then."""
        return {"refusals": dict(self.refusals), "crashes": dict(self.crashes)}


def must_keep(previous: Section, wanted: Wanted, view: View) -> str:
    """Why the heads must stay although the network changed; empty when they need not."""
    if view.is_cut_off:
        heard, known = len(view.reports), len(view.reports) + len(view.lost)
        return f"only {heard} of {known} nodes are heard: the controller may be cut off itself"
    silent = [head.node for head in previous.heads if head.node not in view.reports]
    if wanted.spec.volumes and silent:
        return f"{', '.join(silent)} is silent and may still write to the volumes of the service"
    return ""


def troubles(view: View) -> frozenset[Trouble]:
    """Everything that nodes say they cannot run, to tell what is new."""
    return frozenset(
        (node, status.name, status.generation, status.state)
        for node, report in view.reports.items()
        for status in report.services
        if status.state == "refused" or (status.state == "crash-loop" and (node, status.name) in view.crash_loops)
    )


def _misfits(platform: str, reports: Mapping[str, NodeReport]) -> dict[str, str]:
    found = {node: misfit(platform, report.hardware.architecture) for node, report in reports.items()}
    return {node: reason for node, reason in found.items() if reason}


def _refusals(wanted: Wanted, told: Mapping[str, Any], reports: Mapping[str, NodeReport]) -> dict[str, str]:
    """Nodes that refused this version, now or before: a refusal is not forgotten because the service moved away."""
    known = {str(node): str(reason) for node, reason in dict(told.get("refusals", {})).items()}
    for node, report in reports.items():
        for status in report.services:
            if status.name == wanted.spec.name and status.generation in (0, wanted.spec.version):
                if status.state == "refused":
                    known[node] = f"refuses it: {status.reason or 'no reason given'}"
                elif status.state == "running":
                    known.pop(node, None)
    return known


def _crashes(wanted: Wanted, told: Mapping[str, Any], view: View) -> dict[str, str]:
    """Nodes on which this version crashes again and again, now or before: it is not tried there a second time."""
    known = {str(node): str(reason) for node, reason in dict(told.get("crashes", {})).items()}
    for node, service in sorted(view.crash_loops):
        for status in view.reports[node].services if service == wanted.spec.name and node in view.reports else ():
            if (status.name, status.state) == (service, "crash-loop") and status.generation in (0, wanted.spec.version):
                # The executor's reason goes on with the time of its next try, which is of no interest here.
                why = status.reason.partition("; next try")[0] or "no reason given"
                known.setdefault(node, f"crash-loop: version {wanted.spec.version} ended again and again there ({why})")
    return known
