import json
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli import main
from controller.monitoring.intake import Intake
from gateway.protocol.messages import ServiceStatus
from gateway.protocol.trust import Token
from tests.controller import fakes
from tests.controller.fakes import Home, report, sign_report


class Shell:
    """Runs commands on one controller and gives what they print."""

    def __init__(self, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._capsys = home, capsys
        self.errors = ""

    def run(self, *arguments: str, code: int = 0) -> str:
        self._capsys.readouterr()
        found = main([arguments[0], *arguments[1:], "--config", str(self.home.settings.path)])
        output, self.errors = self._capsys.readouterr()
        assert found == code, self.errors
        return output

    def json(self, *arguments: str) -> object:
        return json.loads(self.run(*arguments, "--json"))


@pytest.fixture
def shell(home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.delenv("PICASSO_CONTROLLER_CONFIG", raising=False)
    return Shell(home, capsys)


def hear(home: Home, *reports: object) -> None:
    import time

    intake = Intake(home.network, home.store, home.authority.trust.verify)
    for each in reports:
        key = home.enrol(each.node)  # type: ignore[attr-defined]
        assert intake.accept(each.node, sign_report(home, key, each), time.time()).report  # type: ignore[arg-type, attr-defined]


def test_init_prints_what_it_made_and_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file is named, then the commands to type; a second time nothing is made."""
    arguments = ["init", "--directory", str(tmp_path), "--network", "/guifi/sants", "--node", "casa"]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    for text in ("anchor.key", "controller.key", "providers/main.key", "picasso-gateway run", "picasso-controller run"):
        assert text in output
    assert f"picasso-controller enrol NODE --config {tmp_path}/picasso-controller" in output
    assert main(arguments) == 0
    assert "made " not in capsys.readouterr().out
    assert main([*arguments, "--latitude", "41"]) == 1
    assert "--longitude" in capsys.readouterr().err


def test_enrol_prints_one_token_bound_to_the_node(shell: Shell) -> None:
    """Standard output is the token alone; the database holds its secret, node and expiry."""
    token = Token.parse(shell.run("enrol", "n7", "--expires", "2h"))
    assert token.network == "/net" and token.anchor_sha256 == shell.home.authority.anchor_sha256
    row = shell.home.store.token(token.id)
    assert row is not None and (row.node, row.secret) == ("n7", token.secret)
    assert "node n7" in shell.errors and "enrolled already" not in shell.errors
    assert Token.parse(shell.run("enrol", "origin")) and "origin is enrolled already" in shell.errors
    asked = shell.json("enrol", "n8")
    assert isinstance(asked, dict) and asked["node"] == "n8" and Token.parse(asked["token"])


def test_wrong_arguments_are_explained(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad node name or time ends with 2 and says what is accepted."""
    for arguments, says in ((["enrol", "No!"], "'No!' is no name"), (["enrol", "a", "--expires", "x"], "'x'")):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2 and says in capsys.readouterr().err


def test_publish_and_deploy_without_a_daemon(tmp_path: Path, shell: Shell) -> None:
    """The commands work on the files alone, say that no controller runs, and the same file again is no news."""
    (tmp_path / "x.tar").write_bytes(fakes.tar(fakes.layout((b"layer",))))
    published = shell.json("publish", str(tmp_path / "x.tar"))
    assert isinstance(published, dict)
    assert published["reference"] == "hello:1" and published["new_bytes"] == published["size_bytes"] > 0
    assert "was there" in shell.run("publish", str(tmp_path / "x.tar"))
    (tmp_path / "web.yaml").write_text("name: web\nimage: hello:1\n")
    assert "web: version 1" in shell.run("deploy", str(tmp_path / "web.yaml"))
    assert "not running" in shell.errors
    assert "deployed already" in shell.run("deploy", str(tmp_path / "web.yaml"))
    images = shell.json("images")
    assert isinstance(images, list) and [row["reference"] for row in images] == ["hello:1"]
    shell.run("deploy", "--remove", "web")
    shell.run("deploy", "--remove", "web", code=1)
    assert "'web' is not deployed" in shell.errors


def test_publish_refuses_bad_names_and_files_that_are_no_image(tmp_path: Path, shell: Shell) -> None:
    """A name tells that an image is meant; --raw takes any file, and nothing is recorded of what is refused."""
    (tmp_path / "x.tar").write_bytes(fakes.tar(fakes.layout((b"layer",))))
    (tmp_path / "film.bin").write_bytes(b"film")
    for name in ("bad name:1", "/x", "x:", "x:1:2", "a//b", "x" * 256, "-x", "x\n"):
        shell.run("publish", str(tmp_path / "x.tar"), f"--name={name}", code=1)
        assert "NAME:TAG is accepted" in shell.errors and "web:1" in shell.errors
    shell.run("publish", str(tmp_path / "film.bin"), "--name", "film:1", code=1)
    assert "film.bin is no image" in shell.errors and "--raw" in shell.errors
    shell.run("publish", str(tmp_path / "film.bin"), "--platform", "linux/arm64", code=1)
    shell.run("publish", str(tmp_path / "x.tar"), "--platform", "linux/arm64", code=1)
    assert "linux/amd64" in shell.errors
    assert shell.json("images") == []
    for name in ("film:1", "registry.org:5000/guifi/film_2.x:1.2-rc1"):
        assert name in shell.run("publish", str(tmp_path / "film.bin"), "--name", name, "--raw")


def test_listings_show_what_was_reported(shell: Shell) -> None:
    """Nodes, links with source and age, and services come from the database, as tables and as JSON."""
    status = ServiceStatus("web", 1, "running", "healthy", "oci")
    hear(shell.home, report("a", {"b": 12.5}, services=(status,)), report("b", {"a": 3.0}, boot_id="x"))
    rows = shell.json("nodes")
    assert isinstance(rows, list)
    assert {row["node"]: row["state"] for row in rows} == {"a": "up", "b": "up", "origin": "never heard"}
    assert "not running" in shell.errors
    links = shell.json("links")
    assert isinstance(links, list)
    assert [(r["from"], r["to"], r["mbps"], r["source"], r["measured_by"]) for r in links] == [
        ("a", "b", 3.0, "goodput", "b"),
        ("b", "a", 12.5, "goodput", "a"),
    ]
    assert "12.50" in shell.run("links") and "goodput" in shell.run("links")
    assert "never heard" in shell.run("nodes")


def test_placement_shows_heads_reasons_and_refusals(tmp_path: Path, shell: Shell) -> None:
    """What was decided is listed with the reason for every head and every refused node."""
    import time
    from contextlib import closing

    from controller import workspace
    from controller.engine import Engine, View

    home = shell.home
    (tmp_path / "x.tar").write_bytes(fakes.tar(fakes.layout((b"layer",))))
    (tmp_path / "web.yaml").write_text("name: web\nimage: hello:1\nports: ['8080:80']\n")
    shell.run("publish", str(tmp_path / "x.tar"))
    shell.run("deploy", str(tmp_path / "web.yaml"))
    reports = [report("a", {"b": 12.5}), report("b", {"a": 3.0}, runtimes=())]
    hear(home, *reports)
    with closing(workspace.open_blobs(home.settings)) as blobs:
        engine = Engine(home.authority, home.store, blobs, "origin", "", 1e6)
        engine.decide(View({r.node: r for r in reports}, {"c": 100.0}), "first", time.time())
    placement = shell.json("placement")
    assert isinstance(placement, dict) and placement["head"]["why"] == "first"
    (service,) = placement["services"]
    assert [head["node"] for head in service["heads"]] == ["a"] and service["members"] == {"b": "a"}
    assert set(service["refused"]) == {"b", "c"}
    assert (
        service["proven"] and service["gap"] == 0.0 and service["mean_bandwidth_mbps"] == service["bound_mbps"] == 3.0
    )
    assert service["heads"][0]["runner_up"] == "" and service["metric"] == "routed"
    table = shell.run("placement")
    assert "mean bandwidth to a member 3.00 Mbit/s (routed), proven optimal" in table
    assert service["heads"][0]["reason"].split()[0] in table and "refused c: lost: not heard for 100 s" in table
    assert "first" in shell.run("placement", "--history")
    services = shell.json("services")
    assert isinstance(services, list) and services[0]["instances"][0]["address"] == "10.0.0.1"
    assert "10.0.0.1:8080" in shell.run("services")


def test_names_from_the_network_cannot_speak_to_the_terminal(shell: Shell) -> None:
    """Control characters and markup in a report are shown as text or not at all."""
    hear(shell.home, report("a", services=(ServiceStatus("[red]\x1b[2Jx", state="running"),)))
    output = shell.run("nodes")
    assert "\x1b" not in output and "[red][2Jx" in output


def test_revoked_node_is_gone_and_may_come_back(shell: Shell) -> None:
    """A revoked node is listed no more; whoever is not enrolled cannot be revoked."""
    shell.home.enrol("n1")
    assert shell.json("revoke", "n1") == {"node": "n1", "revoked": True}
    rows = shell.json("nodes")
    assert isinstance(rows, list) and [row["node"] for row in rows] == ["origin"]
    shell.run("revoke", "n1", code=1)
    assert "'n1' is not enrolled" in shell.errors
    assert Token.parse(shell.run("enrol", "n1"))


def test_epoch_is_shown_and_raised(shell: Shell) -> None:
    """Raising goes one up, or to where it is asked, never down; without the anchor's key it names the file."""
    assert shell.json("epoch") == {"epoch": 1, "raised": False}
    assert shell.json("epoch", "--raise") == {"epoch": 2, "raised": True}
    assert "epoch 7" in shell.run("epoch", "--raise", "--to", "7")
    shell.run("epoch", "--raise", "--to", "7", code=1)
    assert "8 or more is accepted" in shell.errors
    shell.run("epoch", "--to", "9", code=1)
    assert "epoch --raise --to 9" in shell.errors and shell.json("epoch") == {"epoch": 7, "raised": False}
    (shell.home.settings.state_dir / "anchor.key").unlink()
    shell.run("epoch", "--raise", code=1)
    assert "anchor.key is needed" in shell.errors


def test_providers_are_certified_and_listed(shell: Shell) -> None:
    """A further provider gets its own key; a second time changes nothing; a bad name is refused."""
    shell.run("provider", "add", "guifi")
    assert "nothing changed" in shell.run("provider", "add", "guifi")
    rows = shell.json("provider", "list")
    assert isinstance(rows, list) and [row["provider"] for row in rows] == ["guifi", "main"]
    shell.run("provider", "add", "../x", code=1)
    assert "'../x'" in shell.errors


def test_missing_configuration_and_keys_are_named(
    tmp_path: Path, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command says which file it misses and what makes it."""
    assert main(["nodes", "--config", str(tmp_path / "none")]) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err
    (shell.home.settings.state_dir / "controller.key").unlink()
    shell.run("enrol", "n1", code=1)
    assert "controller.key: No such file" in shell.errors and "init" in shell.errors
    shell.run("status", code=1)
    assert "picasso-controller run" in shell.errors


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--help explains each command."""
    listings = ["nodes", "links", "services", "images", "placement"]
    for command in [
        "init",
        "provider",
        "enrol",
        "revoke",
        "run",
        "publish",
        "deploy",
        "status",
        "epoch",
        "place",
        *listings,
    ]:
        with pytest.raises(SystemExit) as caught:
            main([command, "--help"])
        assert caught.value.code == 0 and len(capsys.readouterr().out) > 100


PLACE = (sys.executable, "-m", "controller", "place", "--topology", "qmp:54:7")


def test_a_full_disk_and_a_closed_pipe_are_no_traceback() -> None:
    """What cannot be written is one line and status 1; a reader that has gone is none at all."""
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(PLACE, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (told.returncode, told.stderr) == (1, "picasso-controller place: No space left on device\n")
    with subprocess.Popen(PLACE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as left:
        assert left.stdout is not None and left.stderr is not None
        left.stdout.close()
        assert left.stderr.read() == ""
    assert left.returncode == 1


@pytest.mark.parametrize("module", ["controller.commands", "controller.placement.study.command"])
def test_an_interrupt_while_modules_are_read_is_quiet(module: str) -> None:
    """Ctrl-C before a command has begun ends with 130 and says nothing."""
    script = f"""
import runpy, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
sys.argv = ["picasso-controller", "place", "--topology", "qmp:5:1"]
runpy.run_module("controller", run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")
