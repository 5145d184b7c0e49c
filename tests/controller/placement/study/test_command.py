"""The researcher's commands: what they print, in words and as JSON, and how they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.cli import main
from controller.placement import Request, explain, from_netjson, place, qmp_like, to_netjson, what_if
from controller.placement.study import command_support as support
from controller.placement.study.characterise import characterise
from controller.placement.study.compare import compare
from gateway.protocol.messages import Constraints

Run = Callable[..., str]

SERVICE = """
name: web
image: web:1
replicas: 2
algorithm: greedy
constraints: {exclude: [gw-00], direction: both}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command and gives what it printed; on standard error where it is to fail."""

    def run(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        found = main(arguments)
        output, errors = capsys.readouterr()
        assert found == code, errors
        return output if code == 0 else errors

    return run


def test_place_prints_json(run: Run) -> None:
    """`place --json` prints the documented keys with the figures of place()."""
    printed = json.loads(run("place", "--topology", "qmp:20:3", "--k", "2", "--json"))
    placement = place(qmp_like(20, 3), Request(2))
    assert printed["members"] == placement.section_members()
    assert [head["node"] for head in printed["heads"]] == [head.node for head in placement.heads]
    assert all(head["reason"] for head in printed["heads"])
    assert printed["mean_bandwidth_mbps"] == pytest.approx(placement.mean_bandwidth_mbps, abs=1e-3)
    assert printed["bound_mbps"] == pytest.approx(placement.mean_bandwidth_mbps, abs=1e-3)
    assert printed["proven"] is True
    assert {"algorithm", "metric", "k", "mean_of_cluster_means_mbps", "seconds"} <= set(printed)


def test_place_reads_a_file_and_explains(run: Run, tmp_path: Path) -> None:
    """On a NetJSON file every head is printed with its reason and its members, then where the optimum is."""
    file = tmp_path / "net.json"
    file.write_text(json.dumps(to_netjson(qmp_like(9, 1))))
    placement = place(qmp_like(9, 1), Request(2), "basp", metric="widest", bound=True)
    printed = run("place", "--topology", str(file), "--k", "2", "--metric", "widest", "--algorithm", "basp")
    for head in placement.heads:
        assert f"{head.node}  {head.reason}" in printed
    assert support.outcome(placement.proven, placement.gap) in printed


def test_every_algorithm_states_its_distance_from_the_best(run: Run) -> None:
    """`proven optimal` or a gap that holds is printed for each of them."""
    best = place(qmp_like(20, 3), Request(3)).mean_bandwidth_mbps
    for algorithm in ("random", "kmeans", "basp", "greedy", "optimal"):
        printed = run("place", "--topology", "qmp:20:3", "--k", "3", "--algorithm", algorithm)
        if "proven optimal" not in printed:
            gap = float(printed.split("gap ≤ ")[1].split(" %")[0]) / 100
            own = place(qmp_like(20, 3), Request(3), algorithm).mean_bandwidth_mbps
            assert own / (1 - gap) >= best * 0.999


@pytest.mark.parametrize(
    ("proven", "gap", "said"),
    [
        (True, 0.0, "proven optimal"),
        (False, 0.2, "gap ≤ 20.0 %"),
        (False, 0.00001, "gap ≤ 0.1 %"),
        (False, None, "gap unknown"),
    ],
)
def test_outcome_in_words(proven: bool, gap: float | None, said: str) -> None:
    """A proof, a gap that is never rounded down, or neither."""
    assert support.outcome(proven, gap) == said


def test_services_are_placed_beside_each_other(run: Run, tmp_path: Path) -> None:
    """Two services that would both have the best node share none if they are to be apart; each has its own bound."""
    files = []
    for name, other in (("web", "db"), ("db", "web")):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(f"{{name: {name}, image: 'a:1', constraints: {{apart: [{other}]}}}}")
    command = ("place", "--topology", "qmp:20:3", "--service", *map(str, files))
    placed = json.loads(run(*command, "--json"))["services"]
    (web,), (db,) = ([head["node"] for head in placed[name]["heads"]] for name in ("web", "db"))
    best = place(qmp_like(20, 3), Request(1)).heads[0].node
    assert web != db and best in (web, db)
    assert {row["bound_mbps"] is not None for row in placed.values()} == {True}
    printed = run(*command)
    assert "web: optimal places 1 of 20" in printed and "db: optimal places 1 of 20" in printed
    assert "--what-if, --plot and --explain are about one" in run(*command, "--what-if", "k+1", code=2)


def test_a_service_file_is_what_is_asked_for(run: Run, tmp_path: Path) -> None:
    """Constraints, replicas and algorithm are the file's; --k, --algorithm and --direction go before it."""
    file = tmp_path / "web.yaml"
    file.write_text(SERVICE)
    printed = json.loads(run("place", "--topology", "qmp:20:3", "--service", str(file), "--json"))
    request = Request(2, Constraints(exclude=("gw-00",), direction="both"), cpu=0.5, memory_bytes=64 << 20)
    placement = place(qmp_like(20, 3), request, "greedy")
    assert (printed["algorithm"], printed["k"]) == ("greedy", 2)
    assert printed["members"] == placement.section_members()
    assert "gw-00" in printed["refused"]
    options = ("--k", "3", "--algorithm", "basp", "--direction", "down")
    printed = json.loads(run("place", "--topology", "qmp:20:3", "--service", str(file), *options, "--json"))
    assert (printed["algorithm"], printed["k"], printed["direction"]) == ("basp", 3, "down")


def test_partial_places_what_it_can(run: Run, tmp_path: Path) -> None:
    """What constraints do not allow is refused with each node's constraint, and placed as far as possible if asked."""
    file = tmp_path / "web.yaml"
    file.write_text("name: web\nimage: web:1\nconstraints: {exclude: [gw-0, gw-1]}\n")
    options = ("place", "--topology", "qmp:4:1", "--service", str(file), "--k", "3")
    assert "excluded by name: gw-0, gw-1" in run(*options, code=2)
    assert len(json.loads(run(*options, "--partial", "--json"))["heads"]) == 2
    assert "k is 9" in run("place", "--topology", "qmp:4:1", "--k", "9", code=2)
    assert len(json.loads(run("place", "--topology", "qmp:4:1", "--k", "9", "--partial", "--json"))["heads"]) == 4


def test_every_node_is_told_once(run: Run, tmp_path: Path) -> None:
    """Who finds no room under a cap is told as that alone; nobody served and heads everywhere are said in words."""
    file = tmp_path / "web.yaml"
    file.write_text("{name: web, image: 'a:1', constraints: {maximum_members: 1}}")
    printed = run("place", "--topology", "qmp:4:1", "--service", str(file))
    assert printed.count("target missed for") == 2 and "reached by no head" not in printed
    printed = run("place", "--topology", "qmp:3:1", "--k", "3")
    assert "bandwidth: every node is a head\n" in printed and printed.count("    serves nobody\n") == 3


def test_names_of_nobody_are_noted(run: Run, tmp_path: Path) -> None:
    """Nodes to exclude that the topology has not, and services that are not given, are notes."""
    file = tmp_path / "web.yaml"
    file.write_text("{name: web, image: 'a:1', constraints: {exclude: [gw-0, gw-x], apart: [db], near: {mail: 2}}}")
    other = tmp_path / "db.yaml"
    other.write_text("{name: db, image: 'a:1'}")
    alone = run("place", "--topology", "qmp:4:1", "--service", str(file))
    assert "note: exclude names what is not in this topology: gw-x\n" in alone
    assert "note: apart names what is not among the given services: db" in alone
    both = run("place", "--topology", "qmp:4:1", "--service", str(file), str(other))
    assert "note: near names what is not among the given services: mail" in both and "apart names" not in both


@pytest.mark.parametrize(("change", "why"), [("k+1", "k is 4"), ("without:gw-0", "k is 3"), ("without:x", "no node")])
def test_a_what_if_without_answer_is_at_fault(change: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The placement as the network is stays printed, and the message is about the what-if."""
    assert main(["place", "--topology", "qmp:3:1", "--k", "3", "--what-if", change]) == 2
    output, errors = capsys.readouterr()
    assert "places 3 of 3 nodes" in output
    assert errors.startswith("picasso-controller place: the what-if cannot be answered: ") and why in errors


def test_long_lists_are_cut(run: Run, tmp_path: Path) -> None:
    """Of many refused nodes the first are printed with their reasons, and how many more there are."""
    file = tmp_path / "web.yaml"
    file.write_text("name: web\nimage: web:1\nconstraints: {minimum_cpus: 4}\nresources: {cpu: 0.1}\n")
    document = to_netjson(qmp_like(80, 1))
    document["nodes"][7]["properties"]["cpus"] = 4
    topology = tmp_path / "net.json"
    topology.write_text(json.dumps(document))
    printed = run("place", "--topology", str(topology), "--service", str(file))
    assert printed.count("CPUs, 4 are asked for") == 50
    assert "refused 29 more nodes" in printed
    assert "and 67 more" in printed


def test_explain_has_path_and_bottleneck_of_every_member(run: Run) -> None:
    """`--explain` prints a line a member, and its path and slowest link in the JSON."""
    explanation = explain(qmp_like(9, 1), place(qmp_like(9, 1), Request(2)))
    printed = run("place", "--topology", "qmp:9:1", "--k", "2", "--explain")
    members = [reason for reason in explanation.all() if not reason.why]
    assert len(members) == 7 and all(str(reason) in printed for reason in members)
    nodes = json.loads(run("place", "--topology", "qmp:9:1", "--k", "2", "--explain", "--json"))["nodes"]
    assert nodes == json.loads(json.dumps(explanation.to_json()))


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ("without:gw-04", {"without": "gw-04"}),
        ("double:gw-04,gw-05", {"doubled": ("gw-04", "gw-05")}),
        ("k+2", {"more": 2}),
    ],
)
def test_what_if_says_what_changes(run: Run, tmp_path: Path, change: str, asked: dict[str, Any]) -> None:
    """The difference is printed in words, and both placements are in the JSON."""
    topology = qmp_like(12, 7)
    file = tmp_path / "net.json"
    document = to_netjson(topology)
    document["links"].append({"source": "gw-04", "target": "gw-05", "properties": {"bandwidth_mbps": 3.0}})
    file.write_text(json.dumps(document))
    options = ("place", "--topology", str(file), "--k", "2", "--what-if", change)
    printed = json.loads(run(*options, "--json"))
    assert printed["what_if"]["before"]["members"] == printed["members"]
    expected = what_if(from_netjson(document), Request(2), **asked)
    assert printed["what_if"]["difference"] == expected.difference()
    assert f"{expected.question}: {'; '.join(expected.difference())}" in run(*options)


@pytest.mark.parametrize(
    ("source", "options", "named"),
    [
        ("qmp:x:1", (), "'qmp:54:7'"),
        ("qmp:0:1", (), "'qmp:0:1'"),
        ("missing.json", (), "No such file"),
        ("broken.json", (), "line 2"),
        ("binary.json", (), "UTF-8"),
        ("qmp:5:1", ("--k", "9"), "k is 9"),
        ("qmp:5:1", ("--k", "0"), "k is 0"),
        ("qmp:5:1", ("--algorithm", "magic"), "'magic'"),
        ("qmp:5:1", ("--metric", "luck"), "'luck'"),
        ("qmp:5:1", ("--what-if", "without:gw-9"), "'gw-9'"),
        ("qmp:5:1", ("--service", "missing.yaml"), "missing.yaml"),
        ("qmp:5:1", ("--plot", "/nowhere/plot.svg"), "/nowhere/plot.svg"),
    ],
)
def test_bad_input_is_named(run: Run, source: str, options: tuple[str, ...], named: str, tmp_path: Path) -> None:
    """A topology that is none and arguments out of range end with status 2 and a message that names them."""
    (tmp_path / "broken.json").write_text('{"type":\n oops}')
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    path = source if source.startswith("qmp:") else str(tmp_path / source)
    errors = run("place", "--topology", path, *options, code=2)
    assert errors.startswith("picasso-controller place: ")
    assert named in errors


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("place", "--topology", "qmp:5:1", "--what-if", "magic"), "without:NODE, double:A,B or k+1"),
        (("place", "--topology", "qmp:5:1", "--what-if", "k+0"), "'k+0'"),
        (("place", "--topology", "qmp:5:1", "--plot", "plot.gif"), ".svg, .pdf, .png"),
        (("compare", "--topology", "qmp:5:1", "--k", "0..2"), "'0..2'"),
        (("place", "--topology", "qmp:5:1", "--plot", ".svg"), "'.svg' is no plot"),
        (("compare", "--topology", "qmp:5:1", "--k", "1..100000"), "'1..100000' is no number of heads; up to 10000"),
        (("compare", "--topology", "qmp:5:1", "--k", "1.." + 5000 * "9"), "up to 10000"),
        (("compare", "--topology", "qmp:5:1", "--k", "few"), "'few'"),
    ],
)
def test_arguments_that_cannot_be_read(
    arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An argument that means nothing is refused with what would be accepted, before anything is computed."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def test_numbers_of_heads() -> None:
    """Ranges and lists, ascending and each once."""
    assert support.counts("1..4") == (1, 2, 3, 4)
    assert support.counts("5,1,2,2") == (1, 2, 5)
    assert support.counts("1..3,7") == (1, 2, 3, 7)


def test_compare_prints_both_tables(run: Run) -> None:
    """Figure 8 as a table with each algorithm's gap, and Table 1 with degrees and diameters."""
    printed = run("compare", "--topology", "qmp:20:3", "--k", "1..2", "--runs", "3")
    found = compare(qmp_like(20, 3), (1, 2), runs=3)
    for row in found.rows:
        line = next(line for line in printed.splitlines() if f"│ {row.k} │ {row.algorithm}" in line)
        assert f"{row.mean_bandwidth_mbps:.1f}" in line
        assert support.outcome(row.proven, row.gap) in line
        degrees = ", ".join(str(head.degree) for head in row.heads)
        assert any(f"│ {row.k} │ {row.algorithm}" in line and f"│ {degrees} " in line for line in printed.splitlines())


def test_compare_prints_json_and_draws(run: Run, tmp_path: Path) -> None:
    """The JSON has a row for each k and algorithm, and the plot is written."""
    plot = tmp_path / "plot.svg"
    options = ("--k", "1,3", "--runs", "2", "--algorithms", "basp,greedy", "--metric", "widest", "--direction", "both")
    printed = json.loads(run("compare", "--topology", "qmp:12:3", *options, "--plot", str(plot), "--json"))
    request = Request(1, Constraints(direction="both"))
    found = compare(qmp_like(12, 3), (1, 3), ("basp", "greedy"), runs=2, metric="widest", request=request)
    figures = [(row["k"], row["algorithm"], row["mean_bandwidth_mbps"]) for row in printed["rows"]]
    assert figures == [(row.k, row.algorithm, pytest.approx(row.mean_bandwidth_mbps, abs=1e-5)) for row in found.rows]
    assert "<svg" in plot.read_text()


def test_several_networks_are_compared_at_once(run: Run, tmp_path: Path) -> None:
    """Each has its tables and its panel in both plots, titled by its file; the JSON is a list."""
    file, plot, times = tmp_path / "roofs.json", tmp_path / "plot.svg", tmp_path / "times.svg"
    file.write_text(json.dumps(to_netjson(qmp_like(9, 1))))
    both = ("--topology", str(file), "qmp:8:2", "--k", "1,2", "--algorithms", "greedy")
    printed = json.loads(run("compare", *both, "--json", "--plot", str(plot), "--plot-times", str(times)))
    assert [(each["topology"], each["nodes"]) for each in printed] == [(str(file), 9), ("qmp:8:2", 8)]
    for drawn in (plot, times):
        assert "roofs" in drawn.read_text() and "qmp:8:2" in drawn.read_text()
    assert "qmp:8:2: 8 nodes" in run("compare", *both)


def test_compare_names_bad_input(run: Run) -> None:
    """An unknown algorithm, no runs and more heads than nodes end with status 2 and a message."""
    for options, named in (
        (("--algorithms", "magic"), "'magic'"),
        (("--runs", "0"), "0 runs"),
        (("--k", "9"), "k is 9"),
    ):
        assert named in run("compare", "--topology", "qmp:5:1", *options, code=2)


def test_characterise_prints_the_network_beside_the_papers(run: Run, tmp_path: Path) -> None:
    """Every figure stands in the table, those of the paper beside it, and the plot is written."""
    plot = tmp_path / "plot.png"
    printed = run("characterise", "--topology", "qmp:54:7", "--plot", str(plot))
    found = characterise(qmp_like(54, 7))
    line = next(line for line in printed.splitlines() if "one-way links" in line)
    assert line.count(f"{100 * found.one_way_share:.0f} %") == 2  # the generator's share is the paper's
    busiest = found.busiest[0]
    assert any(f"│ {busiest.source} │ {busiest.destination} │" in line for line in printed.splitlines())
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_characterise_prints_json(run: Run) -> None:
    """The JSON is that of characterise() with the notes of the topology."""
    printed = json.loads(run("characterise", "--topology", "qmp:20:3", "--json"))
    assert printed == json.loads(json.dumps(characterise(qmp_like(20, 3)).to_json() | {"notes": []}))


def test_an_empty_network_is_named(run: Run, tmp_path: Path) -> None:
    """A graph without a node is nothing to place on, to compare on or to characterise."""
    file = tmp_path / "net.json"
    file.write_text('{"type": "NetworkGraph", "nodes": [], "links": []}')
    for command in ("place", "compare", "characterise"):
        assert "no node" in run(command, "--topology", str(file), code=2)


def test_without_a_plot_nothing_waits_for_matplotlib() -> None:
    """The commands load it only to draw."""
    script = (
        "import sys; from controller.cli import main; "
        "[main([c, '--topology', 'qmp:5:1']) for c in ('place', 'compare', 'characterise')]; "
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def test_a_bar_shows_only_on_a_terminal_and_only_after_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is quick, and what is redirected, shows no bar; what takes longer shows what it is at and how far."""

    def work(steps: int) -> str:
        with support.progress(steps) as step:
            for number in range(steps):
                step(f"step {number}")
                time.sleep(0.15)
        return capsys.readouterr().err

    assert work(2) == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(support, "SHOWN_AFTER_S", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    assert "step 1" in work(2)
    monkeypatch.setattr(support, "SHOWN_AFTER_S", 30.0)
    assert "step" not in work(2)
