"""The story of the demonstration, step by step. Every figure is asked of a running process or of its socket."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from controller.demo import asking, report
from controller.demo.asking import Unanswered
from controller.demo.image import STATUS_PATH, build_service_image
from controller.demo.network import CONTROLLER_PROCESS, DemoNetwork, StepFailed, service_file
from controller.demo.plan import CONTROLLER, section_name
from controller.demo.report import Answer, LinkBytes, PlacedReplica, Results, Screen

REPLICAS = 2
START_S, MEASURE_S, REPORT_S, PLACE_S, OUTAGE_S, REBOOT_S = 25.0, 30.0, 10.0, 40.0, 15.0, 20.0
GUESSED = ("", "class")


class Story:
    """The steps over one network; each raises StepFailed or Unanswered, and `results` holds what is known so far."""

    def __init__(self, network: DemoNetwork, services: int, screen: Screen) -> None:
        self.network, self.screen = network, screen
        self.services = [
            f"service-{chr(ord('a') + at)}" if services <= 26 else f"service-{at}" for at in range(services)
        ]
        self.results = Results(nodes=len(network.plan.gateways))
        self._heads: dict[str, list[str]] = {}
        self._seen: dict[tuple[str, str], str] = {}
        self._before: dict[tuple[str, str], tuple[float, dict[str, Any]]] = {}

    def tell(self) -> None:
        """All steps in order."""
        self.start()
        self.measure()
        self.deploy()
        self.count()
        self.results.http = self.visit("every service through every gateway's page")
        self.lose_controller()
        self.lose_host()

    # --- the network comes up

    def start(self) -> None:
        plan, gateways = self.network.plan, self.network.plan.gateways
        links = len(plan.topology.edges) // 2
        self.screen.step(
            f"A community network: {len(gateways)} gateways, {links} links, and a controller at its edge [C]"
        )
        self.screen.drawing(report.drawing(plan))
        self.screen.network(plan)
        self.screen.step("The controller makes the network's keys, and a token for every gateway")
        self.network.start_controller()
        tokens = self.network.enrolment_tokens(gateways)
        self.screen.step(f"{len(gateways)} gateways start and enrol")
        for node in gateways:
            self.network.start_gateway(node, tokens[node])
        self.network.wait("enrolment", START_S, self._enrolled)
        runtimes = self.network.wait("the executors", START_S, self._runtimes)
        self.screen.note(f"all are enrolled; services will run in: {', '.join(runtimes)}")
        if not runtimes:
            raise StepFailed("no container runtime works here; install one: apt-get install runc, or bubblewrap")

    def _enrolled(self) -> tuple[bool | None, str]:
        status = self.network.ask_all("status", self.network.plan.gateways)
        missing = [node for node in self.network.plan.gateways if not status.get(node, {}).get("enrolled")]
        return (None if missing else True), f"not enrolled: {', '.join(missing)}"

    def _runtimes(self) -> tuple[list[str] | None, str]:
        """What the executors can run services with; an executor that has looked around has something to say."""
        executors = {n: s["executor"] for n, s in self.network.ask_all("status", self.network.plan.gateways).items()}
        silent = [node for node in self.network.plan.gateways if not executors.get(node, {}).get("notes")]
        runtimes = sorted({name for executor in executors.values() for name in executor["runtimes"]})
        return (None if silent else runtimes), f"no word of the executors of {', '.join(silent)}"

    def measure(self) -> None:
        self.screen.step("Neighbours measure the links between them")
        self.network.wait("measuring the links", MEASURE_S, self._all_measured)
        known = self.network.wait("reports of the links", REPORT_S, self._all_reported)
        errors = [abs(known[pair] / self.network.plan.rate_mbps(*pair) - 1) for pair in known]
        mean = sum(errors) / len(errors)
        self.screen.note(
            f"the controller knows all {len(known)} directions, on average {mean:.0%} off the rate that was set"
        )

    def _directions(self) -> list[tuple[str, str]]:
        gateways = self.network.plan.gateways
        return [(a, b) for a in gateways for b in self.network.plan.neighbors(a) if b in gateways]

    def _all_measured(self) -> tuple[bool | None, str]:
        """Whether every gateway has measured what it receives from each neighbour."""
        links = self.network.ask_all("links", self.network.plan.gateways)
        known = {(row["node"], node) for node, rows in links.items() for row in rows if row["rx_source"] not in GUESSED}
        missing = [f"{a} -> {b}" for a, b in self._directions() if (a, b) not in known]
        return (None if missing else True), f"not measured: {', '.join(missing)}"

    def _all_reported(self) -> tuple[dict[tuple[str, str], float] | None, str]:
        """Every direction as the controller knows it, once it knows all."""
        known = self.measured()
        missing = [f"{a} -> {b}" for a, b in self._directions() if (a, b) not in known]
        return (None if missing else {pair: known[pair] for pair in self._directions()}), f"unknown: {missing}"

    def measured(self) -> dict[tuple[str, str], float]:
        """Measured Mbit/s of each direction, as the controller has it from the reports."""
        rows = self.network.controller("links", "--json")
        return {(row["from"], row["to"]): row["mbps"] for row in rows if row["mbps"] and row["source"] not in GUESSED}

    # --- services are published and placed

    def deploy(self) -> None:
        folder = self.network.plan.folder(CONTROLLER)
        self._before = self._link_faces()
        for at, service in enumerate(self.services):
            image = build_service_image(folder / f"{service}.tar", service, self.network.nonce)
            size = image.stat().st_size / 1e6
            self.screen.step(f"A provider publishes {service} ({size:.2f} MB) and deploys {REPLICAS} replicas of it")
            self.network.controller("publish", str(image), "--name", service)
            file = folder / f"{service}.yaml"
            file.write_text(service_file(service, at, service, REPLICAS))
            self.network.controller("deploy", str(file))
        self._show_placements()
        self.screen.step("The image travels from gateway to gateway, and the chosen ones start it")
        self.network.wait("starting the services", PLACE_S, self._healthy)
        self.results.placements = self._placements()
        self.screen.placements(self.results.placements)

    def _show_placements(self) -> None:
        rows = self.network.wait("placement", PLACE_S, self._placed)
        for row in rows:
            self._heads[row["service"]] = [head["node"] for head in row["heads"]]
            for head in row["heads"]:
                self.screen.note(f"{row['service']} -> {head['node']}: {head['reason']}")

    def _placed(self) -> tuple[list[dict[str, Any]] | None, str]:
        rows = [row for row in self._decided() if row["service"] in self.services]
        missing = [
            s for s in self.services if s not in {row["service"] for row in rows if len(row["heads"]) == REPLICAS}
        ]
        return (None if missing else rows), f"not placed on {REPLICAS} gateways: {', '.join(missing)}"

    def _decided(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.network.controller("placement", "--json")["services"]
        return rows

    def _replicas(self) -> Iterable[tuple[str, str]]:
        return ((service, node) for service in self.services for node in self._heads[service])

    def _healthy(self) -> tuple[bool | None, str]:
        missing = []
        states = {node: self._own_services(node) for node in {node for _, node in self._replicas()}}
        for service, node in self._replicas():
            row = states[node].get(service, {})
            state = f"{row.get('state', 'not there yet')}, {row.get('health', 'unknown')}"
            if self._seen.get((service, node)) != state:
                self._seen[service, node] = state
                self.screen.note(f"{service} on {node}: {state}{self._progress(node)}")
            if (row.get("state"), row.get("health")) != ("running", "healthy"):
                missing.append(f"{service} on {node} is {state} {row.get('reason', '')}".strip())
        return (None if missing else True), "; ".join(missing)

    def _progress(self, node: str) -> str:
        held = sum(blob["size"] for blob in self.network.ask(node, "cache")["disk"]["blobs"])
        return f" ({held / 1e6:.2f} MB of blobs are there)"

    def _own_services(self, node: str) -> dict[str, dict[str, Any]]:
        try:
            return {row["name"]: row for row in self.network.ask(node, "services")}
        except Unanswered:
            return {}

    def _placements(self) -> list[PlacedReplica]:
        replicas = []
        for row in self._decided():
            for head in row["heads"] if row["service"] in self.services else ():
                own = self._own_services(head["node"]).get(row["service"], {})
                replicas.append(
                    PlacedReplica(
                        row["service"], head["node"], own.get("runtime", ""), head["reason"], head["bandwidth_mbps"]
                    )
                )
        return replicas

    # --- figures

    def count(self) -> None:
        """Bytes over each link, what left the repository, and how often a store answered."""
        plan, measured = self.network.plan, self.measured()
        before, now = self._before, self._link_faces()
        self.results.bytes_per_link = [
            LinkBytes(
                source=pair[0],
                destination=pair[1],
                bytes=face["out_bytes"],
                delivery_bytes=face["out_bytes"] - before[pair][1]["out_bytes"],
                rate_mbps=plan.rate_mbps(*pair),
                measured_mbps=measured.get(pair),
                time=moment,
            )
            for pair, (moment, face) in now.items()
        ]
        uplink = (CONTROLLER, plan.neighbors(CONTROLLER)[0])
        self.results.bytes_sent_by_repository = now[uplink][1]["out_data_bytes"] - before[uplink][1]["out_data_bytes"]
        caches = self.network.ask_all("cache")
        self.results.cache_hits = sum(caches[node]["blob_hits"] for node in plan.gateways)
        self.results.cache_misses = sum(caches[node]["blob_misses"] for node in plan.gateways)
        heads = {node for _, node in self._replicas()}
        self.results.bytes_delivered = sum(blob["size"] for node in heads for blob in caches[node]["disk"]["blobs"])
        self.screen.step("Bytes over each link, as the faces count them")
        self.screen.links(self.results.bytes_per_link)
        sent, delivered = self.results.bytes_sent_by_repository, self.results.bytes_delivered
        self.screen.note(
            f"{delivered / 1e6:.2f} MB were delivered, {sent / 1e6:.2f} MB left the repository; "
            f"{self.results.cache_hits} segments came from a gateway's store"
        )
        if not 0 < sent < delivered:
            raise StepFailed(f"caches did not work: {sent} bytes left the repository for {delivered} bytes delivered")

    def _link_faces(self) -> dict[tuple[str, str], tuple[float, dict[str, Any]]]:
        """For each direction of each link the moment and the sending face's counters."""
        neighbors = {section_name(node): node for node in self.network.plan.topology.names}
        found: dict[tuple[str, str], tuple[float, dict[str, Any]]] = {}
        for node in self.network.plan.topology.names:
            faces = self.network.ask(node, "faces")
            moment = time.time()
            found |= {(node, neighbors[f["neighbor"]]): (moment, f) for f in faces if f["neighbor"] in neighbors}
        return found

    # --- users

    def visit(
        self, what: str, pages: Iterable[str] | None = None, services: Iterable[str] | None = None
    ) -> list[Answer]:
        """A GET of services through the pages of gateways; one that is not good is a failure of the run."""
        self.screen.step(f"GET: {what}")
        pages = list(self.network.plan.gateways if pages is None else pages)
        rows = self._get_all(pages, list(self.services if services is None else services))
        self.screen.answers(rows)
        bad = [row for row in rows if not row.ok]
        if bad:
            text = "; ".join(f"{row.service} through {row.page}: {row.problem}" for row in bad)
            self.results.failures.append(f"{what}: {text}")
        return rows

    def _get_all(self, pages: list[str], services: list[str]) -> list[Answer]:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda pair: self._get(*pair), [(page, s) for page in pages for s in services]))

    def _get(self, page: str, service: str) -> Answer:
        reply = asking.get(f"{self.network.plan.page(page)}/{service}{STATUS_PATH}")
        body = reply.json()
        node = str(body.get("node", ""))
        problem = reply.problem
        if not problem and reply.status != 200:
            problem = f"status {reply.status} of {reply.url}"
        elif not problem and body.get("nonce") != self.network.nonce:
            problem = f"the body has not this run's nonce: {reply.body[:80]!r}"
        elif not problem and (body.get("service") != service or node not in self._heads[service]):
            problem = f"answered as {body.get('service')} by {node or 'nobody'}, who is no head of it"
        return Answer(service, node, reply.status, round(reply.latency_ms, 2), page, problem)

    # --- things go wrong

    def lose_controller(self) -> None:
        self.screen.step("The controller and its gateway are killed (-9)")
        self.network.processes.kill(CONTROLLER_PROCESS)
        self.network.processes.kill(CONTROLLER)
        self.results.after_controller_loss = self.visit("the same, with no controller")

    def lose_host(self) -> None:
        """A gateway with a replica dies with everything it started, forgets its run directory, and starts again."""
        node = self._heads[self.services[0]][0]
        hosted = [service for service, head in self._replicas() if head == node]
        before = {service: self._started(node, service) for service in hosted}
        self.results.rebooted = node
        count = self.network.processes.kill(node)
        self.screen.step(f"{node} is killed (-9) with everything it started: {count} processes, {len(hosted)} services")
        others = [gateway for gateway in self.network.plan.gateways if gateway != node]
        self.results.during_outage = self._outage(others, hosted)
        shutil.rmtree(self.network.run_dir(node))
        self.screen.step(f"{node} starts again: its run directory is gone, the controller is dead")
        self.network.start_gateway(node)
        self.network.wait(f"restart of {node}", REBOOT_S, lambda: self._runs_again(node, hosted))
        self.results.after_reboot = self.visit(f"services of {node} through its own page", [node], hosted)
        self._check_reboot(node, before)

    def _outage(self, pages: list[str], hosted: list[str]) -> list[Answer]:
        """The users of the dead gateway are served by the other replica, within the time that its neighbours need."""
        deadline = time.monotonic() + OUTAGE_S
        while True:
            rows = self._get_all(pages, hosted)
            if all(row.ok for row in rows) or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        self.screen.answers(rows)
        bad = [f"{row.service} through {row.page}: {row.problem}" for row in rows if not row.ok]
        if bad:
            self.results.failures.append("while a host is dead: " + "; ".join(bad))
        return rows

    def _started(self, node: str, service: str) -> float:
        """When the container itself says that it started, asked on the node's own page."""
        reply = asking.get(f"{self.network.plan.page(node)}/{service}{STATUS_PATH}")
        body = reply.json()
        if body.get("node") != node:
            raise StepFailed(
                f"{service} does not answer on its own gateway {node}: {reply.problem or body or reply.status}"
            )
        return float(body["started"])

    def _runs_again(self, node: str, services: list[str]) -> tuple[bool | None, str]:
        own = self._own_services(node)
        waiting = [
            f"{service} is {own.get(service, {}).get('state', 'not there')}, {own.get(service, {}).get('health', '')}"
            for service in services
            if (own.get(service, {}).get("state"), own.get(service, {}).get("health")) != ("running", "healthy")
        ]
        return (None if waiting else True), "; ".join(waiting)

    def _check_reboot(self, node: str, before: dict[str, float]) -> None:
        """New containers, from local disk: the restarted gateway has sent no Interest for a blob."""
        for service, started in before.items():
            again = self._started(node, service)
            if again <= started:
                self.results.failures.append(
                    f"{service} on {node} says it started at {again}, no later than before ({started})"
                )
            else:
                self.screen.note(
                    f"{service} on {node}: a new container, {again - started:.1f} s younger than the one before"
                )
        misses = self.network.ask(node, "cache")["blob_misses"]
        self.screen.note(f"{node} sent {misses} Interests for blobs since its restart")
        if misses:
            self.results.failures.append(
                f"{node} asked others for {misses} blob segments; its own disk should have sufficed"
            )
