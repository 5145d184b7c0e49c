"""The owner's file: what it means, and that everything wrong with it is said at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway import config
from gateway.config import Settings

EXAMPLE = Path(__file__).parent.parent / "examples/picasso.uci"
TOKEN = "/guifi/sants.7." + "ab" * 16 + "." + "cd" * 32


def load(tmp_path: Path, text: str) -> tuple[Settings | None, list[str]]:
    """Settings, and each problem as it is printed, with the directory left out."""
    path = tmp_path / "picasso"
    path.write_text(text)
    settings, problems = config.load(path)
    return settings, [str(problem).replace(f"{tmp_path}/", "") for problem in problems]


def settings_of(tmp_path: Path, text: str) -> Settings:
    settings, problems = load(tmp_path, text)
    assert settings is not None, problems
    return settings


def only_problem(tmp_path: Path, text: str) -> str:
    _, problems = load(tmp_path, text)
    assert len(problems) == 1, problems
    return problems[0]


def test_the_example_means_what_it_says() -> None:
    """The commented example loads without a warning, every option in its unit."""
    settings, problems = config.load(EXAMPLE)
    assert problems == []
    assert settings == Settings(
        path=EXAMPLE,
        gateway=config.GatewaySettings(
            enabled=True,
            network="/guifi/sants",
            node="pisuerga-7",
            latitude=41.3752,
            longitude=2.1417,
            zone="sants",
            labels=("outdoor",),
            page=("0.0.0.0", 8080),
            state_dir=Path("/etc/picasso"),
            run_dir=Path("/run/picasso"),
            token="",
        ),
        controller=config.ControllerSettings(uri="tcp4://10.1.0.2:6363", interval_s=30.0),
        forwarder=config.ForwarderSettings(
            listen=("unix:///run/picasso/ndn.sock", "udp4://0.0.0.0:6363", "tcp4://0.0.0.0:6363"),
            networks=("mesh",),
            memory_cache_bytes=16 * 1024**2,
            blob_dir=Path("/srv/picasso/blobs"),
            disk_cache_bytes=512 * 1024**2,
            want_lifetime_s=72 * 3600.0,
            custody_bytes=128 * 1024**2,
            discovery=True,
            management_keys=(),
        ),
        neighbors=(config.NeighborSettings(name="upc_portal", uri="tcp4://10.1.24.1:6363", cost=1, rate_bps=None),),
        routes=(config.RouteSettings(prefix="/guifi/sants", neighbor="upc_portal", cost=None),),
        monitor=config.MonitorSettings(interval_s=30.0, networks=("mesh",)),
        executor=config.ExecutorSettings(("auto",), memory_bytes=256 * 1024**2, cpu=1.5, disk_bytes=1024**3),
        policy=config.PolicySettings(allow_providers=("*",), allow_ports=((8000, 8999),)),
    )
    assert settings is not None and settings.services_dir == Path("/srv/picasso/services")


def test_an_empty_file_is_a_plain_forwarder_that_listens_to_nobody(tmp_path: Path) -> None:
    """With nothing set there is no controller, no page, no disk cache, and only the local socket is open."""
    settings = settings_of(tmp_path, "")
    assert settings.controller is None
    assert settings.gateway.page is None
    assert settings.forwarder.blob_dir is None
    assert settings.forwarder.listen == ("unix:///run/picasso/ndn.sock",)


def test_the_local_socket_follows_the_run_directory(tmp_path: Path) -> None:
    """A gateway with a run directory of its own puts its socket there."""
    settings = settings_of(tmp_path, "config gateway\n\toption run_dir '/tmp/x'\n")
    assert settings.forwarder.listen == ("unix:///tmp/x/ndn.sock",)


@pytest.mark.parametrize(
    ("hostname", "node"), [("Rbx-7.example.org", "rbx-7"), ("my_pi 4", "my-pi-4"), ("---", "gateway"), ("", "gateway")]
)
def test_a_node_without_a_name_is_called_like_its_host(hostname: str, node: str) -> None:
    """Any host name gives a node name that the network accepts."""
    settings, _ = config.parse(config.uci.parse(""), config.Problems(Path("picasso")), hostname)
    assert settings is not None and settings.gateway.node == node


def test_everything_wrong_is_said_at_once_with_line_and_option(tmp_path: Path) -> None:
    """Errors and warnings of all kinds come in one list, in the order of the file."""
    settings, problems = load(
        tmp_path,
        """\
config gateway 'gateway'
	option nod 'x'
	option node 'Über'
	option latitude '91'

config forwarder
	option memory_cache '16X'
	list listen 'tcp4://10.0.0.1'
	list listen 'udp4://0.0.0.0:6363'

config neighbor 'portal'
	option uri 'tcp4://10.1.24.1:6363'
	option rate 'fast'

config route
	option prefix 'guifi'
	option neighbor 'prtal'

config forwardr
	option x '1'
""",
    )
    assert settings is None
    assert problems == [
        "picasso:2: warning: gateway.nod: unknown option, did you mean 'node'?; it is ignored",
        "picasso:3: error: gateway.node: 'Über' is no name; use a-z, 0-9 and - inside, at most 63 characters",
        "picasso:4: error: gateway.latitude: '91' is no number between -90 and 90",
        "picasso:7: error: @forwarder[0].memory_cache: '16X' is no size; write it like 16M (K, M or G)",
        "picasso:8: error: @forwarder[0].listen: 'tcp4://10.0.0.1' has no port; the usual one of NDN is :6363",
        "picasso:13: error: portal.rate: 'fast' is no rate; write it like 10M (bit/s; K, M or G)",
        "picasso:16: error: @route[0].prefix: 'guifi' is no NDN name; write it like /guifi/sants",
        "picasso:17: error: @route[0].neighbor: there is no neighbor 'prtal', did you mean 'portal'?",
        "picasso:19: warning: @forwardr[0]: unknown section type 'forwardr', did you mean 'forwarder'?; "
        "the section is ignored",
    ]


def test_a_mistake_in_the_syntax_does_not_hide_the_others(tmp_path: Path) -> None:
    """A line that cannot be read is one error among the others, and nothing is called missing because of it."""
    _, problems = load(
        tmp_path,
        "config neighbor 'a-b'\n\toption uri 'unix:///x'\nconfig route\n\toption neighbor 'a_b'\n\toption prefix '/x'\n"
        "config gateway\n\toption enabled 'maybe'\n\toption node 'a' 'b'\n",
    )
    assert problems == [
        "picasso:1: error: 'a-b' is no section name: letters, digits and _ only",
        "picasso:7: error: @gateway[0].enabled: 'maybe' is no boolean; write 1 or 0",
        "picasso:8: error: 'b' is one word too many: put a value with blanks in quotes",
    ]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, a directory, a file of another kind and one that is far too large give one clear error each."""
    binary, huge = tmp_path / "binary", tmp_path / "huge"
    binary.write_bytes(b"config a\n\toption o '\xff'\n")
    huge.write_bytes(b"#" * (1 << 21))
    for path, place, words in [
        (tmp_path / "none", "", "cannot be read: No such file or directory"),
        (tmp_path, "", "cannot be read: Is a directory"),
        (binary, ":2", "not UTF-8"),
        (huge, "", "no configuration file"),
    ]:
        settings, problems = config.load(path)
        assert settings is None
        assert len(problems) == 1
        assert str(problems[0]).startswith(f"{path}{place}: error: ")
        assert words in str(problems[0])


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("gateway", "network", "guifi"),
        ("gateway", "network", "/"),
        ("gateway", "network", "/a//b"),
        ("gateway", "network", "/a/%zz"),
        ("gateway", "node", "a_b"),
        ("gateway", "node", "-a"),
        ("gateway", "node", "a" * 64),
        ("gateway", "enabled", "2"),
        ("gateway", "longitude", "nan"),
        ("gateway", "page", "https://0.0.0.0:8080"),
        ("gateway", "page", "http://0.0.0.0"),
        ("gateway", "page", "http://portal:8080"),
        ("gateway", "state_dir", "etc/picasso"),
        ("gateway", "token", "abc"),
        ("controller", "uri", "tcp://10.1.0.2:6363"),
        ("controller", "uri", "tcp4://[::1]:6363"),
        ("controller", "uri", "tcp6://10.1.0.2:6363"),
        ("controller", "uri", "tcp4://10.1.0.2:0"),
        ("controller", "uri", "tcp4://10.1.0.2:65536"),
        ("controller", "uri", "tcp4://10.1.0.2:99999999999"),
        ("controller", "uri", "tcp4://10.1.0.999:6363"),
        ("controller", "uri", "tcp4://0.0.0.0:6363"),
        ("controller", "uri", "tcp4://:6363"),
        ("controller", "uri", "unix://ndn.sock"),
        ("controller", "uri", "unix:///" + "x" * 107),
        ("controller", "interval", "0"),
        ("controller", "interval", "30x"),
        ("controller", "interval", "-1"),
        ("controller", "interval", "٣"),
        ("forwarder", "listen", "tcp4://portal:6363"),
        ("forwarder", "network", "a b"),
        ("forwarder", "memory_cache", "-1"),
        ("forwarder", "disk_cache", "1e9"),
        ("neighbor", "cost", "-1"),
        ("neighbor", "cost", "1.5"),
        ("neighbor", "rate", "0"),
        ("executor", "runtime", "podman"),
        ("executor", "cpu", "0"),
        ("policy", "allow_provider", "A"),
        ("policy", "allow_port", "0"),
        ("policy", "allow_port", "8999-8000"),
        ("policy", "allow_port", "8000-70000"),
        ("policy", "allow_port", "8000-"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_it(tmp_path: Path, section: str, option: str, value: str) -> None:
    """Each value that would not work is refused with its line, its option and (but for the token) itself."""
    uri = "\toption uri 'tcp4://10.0.0.1:6363'\n" if section == "neighbor" else ""
    settings, problems = load(tmp_path, f"config {section} 's'\n{uri}\toption {option} '{value}'\n")
    errors = [problem for problem in problems if ": error: " in problem]
    assert settings is None
    assert errors[0].startswith(f"picasso:{3 if uri else 2}: error: s.{option}: ")
    assert (repr(value) in errors[0]) == (option != "token")


@pytest.mark.parametrize(
    ("uri", "means"),
    [
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("tcp4://10.1.0.2:6363", "tcp4://10.1.0.2:6363"),
        ("udp4://portal.guifi.net:6363", "udp4://portal.guifi.net:6363"),
        ("tcp6://[2001:DB8:0::1]:6363", "tcp6://[2001:db8::1]:6363"),
        ("udp6://[fe80::1%wlan0]:6363", "udp6://[fe80::1%wlan0]:6363"),
        ("tcp6://portal:6363", "tcp6://portal:6363"),
    ],
)
def test_a_face_uri_is_read_in_every_form(tmp_path: Path, uri: str, means: str) -> None:
    """Unix sockets, IPv4, IPv6 (in its one canonical form), scopes and host names are understood."""
    settings = settings_of(tmp_path, f"config neighbor 'n'\n\toption uri '{uri}'\n")
    assert settings.neighbors[0].uri == means


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("option memory_cache '1500'", lambda f: f.memory_cache_bytes == 1500),
        ("option memory_cache '4k'", lambda f: f.memory_cache_bytes == 4096),
        ("option memory_cache '1.5G'", lambda f: f.memory_cache_bytes == 3 << 29),
        ("option want_lifetime '90'", lambda f: f.want_lifetime_s == 90),
        ("option want_lifetime '1.5m'", lambda f: f.want_lifetime_s == 90),
        ("option want_lifetime '2d'", lambda f: f.want_lifetime_s == 172800),
        ("option discovery 'off'", lambda f: f.discovery is False),
        ("option discovery 'Yes'", lambda f: f.discovery is True),
    ],
)
def test_units_and_booleans(tmp_path: Path, line: str, read: object) -> None:
    """Sizes count in 1024, times in seconds, and booleans are UCI's words."""
    assert callable(read)
    assert read(settings_of(tmp_path, f"config forwarder\n\t{line}\n").forwarder)


def test_a_rate_is_a_speed(tmp_path: Path) -> None:
    """10M is ten million bits a second, not a size."""
    text = "config neighbor 'n'\n\toption uri 'unix:///n'\n\toption rate '10M'\n"
    assert settings_of(tmp_path, text).neighbors[0].rate_bps == 10_000_000


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("tcp4://0.0.0.0:6363", "tcp4://0.0.0.0:6363"),
        ("tcp4://0.0.0.0:6363", "tcp4://10.0.0.1:6363"),
        ("tcp6://[::1]:6363", "tcp6://[0:0::1]:6363"),
        ("unix:///x", "unix:///x"),
    ],
)
def test_a_port_is_listened_to_once(tmp_path: Path, first: str, second: str) -> None:
    """Two listen lines for one port, also by way of the wildcard address, are an error on the second."""
    problem = only_problem(tmp_path, f"config forwarder 'f'\n\tlist listen '{first}'\n\tlist listen '{second}'\n")
    assert problem.startswith(f"picasso:3: error: f.listen: '{second}' takes the same port or path as")


def test_different_sockets_do_not_clash(tmp_path: Path) -> None:
    """TCP and UDP, IPv4 and IPv6, other ports and ports that the system chooses stand side by side."""
    uris = ["tcp4://0.0.0.0:6363", "udp4://0.0.0.0:6363", "tcp6://[::]:6363", "tcp4://0.0.0.0:6364"]
    uris += ["tcp4://127.0.0.1:0", "tcp4://127.0.0.1:0"]
    text = "config forwarder\n" + "".join(f"\tlist listen '{uri}'\n" for uri in uris)
    assert settings_of(tmp_path, text).forwarder.listen == tuple(uris)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("config neighbor\n\toption uri 'unix:///x'\n", "1: error: @neighbor[0]: a neighbor needs a name"),
        ("config neighbor 'n'\n", "1: error: n.uri: is missing"),
        ("config route\n\toption prefix '/a'\n", "1: error: @route[0].neighbor: is missing"),
        ("config route\n\toption prefix '/a'\n\toption neighbor 'n'\n", "3: error: @route[0].neighbor: there is no"),
        ("config gateway 'a'\nconfig gateway 'b'\n", "2: error: b: a second gateway section; the first is on line 1"),
        ("config gateway\n\toption latitude '1'\n", "2: error: @gateway[0].latitude: latitude and longitude go"),
        (f"config gateway 'g'\n\toption token '{TOKEN}'\n", "2: error: g.token: is for the network '/guifi/sants'"),
        ("config gateway 'g'\n\tlist node 'a'\n\tlist node 'b'\n", "3: error: g.node: takes one value, 2 are given"),
        ("config executor 'e'\n\tlist runtime 'none'\n\tlist runtime 'oci'\n", "2: error: e.runtime: 'none' switches"),
        ("config executor 'e'\n\tlist runtime ''\n", "2: error: e.runtime: names no runtime"),
    ],
)
def test_what_does_not_go_together_is_an_error(tmp_path: Path, text: str, problem: str) -> None:
    """A mistake that no single value shows is found too, and named where the owner can mend it."""
    settings, problems = load(tmp_path, text)
    assert settings is None
    assert any(line.startswith("picasso:" + problem) for line in problems), problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("config forwarder 'f'\n\toption disk_cache '1G'\n", "2: warning: f.disk_cache: has no effect without"),
        ("config executor 'e'\n\tlist runtime 'oci'\n", "2: warning: e.runtime: has no effect without"),
        (
            "config neighbor 'm'\n\toption uri 'tcp4://10.0.0.1:6363'\n\toption reliable '1'\n",
            "3: warning: m.reliable: has no effect: it is for UDP",
        ),
        (
            "config neighbor 'm'\n\toption uri 'tcp4://10.0.0.1:6363'\n\toption mtu '1200'\n",
            "3: warning: m.mtu: has no effect: it is for UDP",
        ),
        (
            "config neighbor 'n'\n\toption uri 'unix:///x'\nconfig neighbor 'm'\n\toption uri 'unix:///x'\n",
            "4: warning: m.uri: 'unix:///x' is the neighbor 'n' already",
        ),
        ("config alias 'x'\n\toption y '1'\n", "1: warning: x: unknown section type 'alias'"),
    ],
)
def test_what_does_no_harm_is_a_warning(tmp_path: Path, text: str, problem: str) -> None:
    """What has no effect is said, and the gateway starts all the same."""
    settings, problems = load(tmp_path, text)
    assert settings is not None
    assert [line[: len("picasso:" + problem)] for line in problems] == ["picasso:" + problem]


def test_a_token_is_accepted_and_never_printed(tmp_path: Path) -> None:
    """A token of this network is kept; no message about a wrong one shows it."""
    head = "config gateway\n\toption network '/guifi/sants'\n"
    assert settings_of(tmp_path, f"{head}\toption token '{TOKEN}'\n").gateway.token == TOKEN
    assert "abab" not in only_problem(tmp_path, f"{head}\toption token '{TOKEN[:-1]}'\n")


def test_an_owner_can_allow_nothing(tmp_path: Path) -> None:
    """An empty list in the policy is nobody and no port, not the default."""
    text = "config policy\n\tlist allow_provider ''\n\tlist allow_port ''\n"
    assert settings_of(tmp_path, text).policy == config.PolicySettings((), ())


def test_options_of_repeated_sections_come_together(tmp_path: Path) -> None:
    """Sections of one name are one section, and the last value of an option counts, as everywhere in UCI."""
    text = "config gateway 'g'\n\toption node 'a'\n\toption zone 'z'\nconfig gateway 'g'\n\toption node 'b'\n"
    gateway = settings_of(tmp_path, text).gateway
    assert gateway == replace(config.GatewaySettings(), node="b", zone="z")


@pytest.mark.parametrize(
    ("page", "listen", "address", "ports"),
    [
        ("http://0.0.0.0:8080", "tcp4://0.0.0.0:6363", "0.0.0.0", {8080, 6363}),
        ("http://10.0.0.1:8080", "tcp4://10.0.0.1:6363", "0.0.0.0", {8080, 6363}),
        ("http://10.0.0.1:8080", "udp4://10.0.0.2:6363", "10.0.0.2", set()),
        ("http://[::]:8080", "tcp6://[::1]:6363", "10.0.0.2", {8080}),
        ("", "unix:///tmp/x.sock", "0.0.0.0", set()),
    ],
)
def test_a_gateway_knows_its_own_ports(tmp_path: Path, page: str, listen: str, address: str, ports: set) -> None:
    """The TCP ports that it holds at the address where services listen, and no others."""
    text = f"config gateway\n\toption page '{page}'\nconfig forwarder\n\tlist listen '{listen}'\n"
    settings = settings_of(tmp_path, text + f"config executor\n\toption address '{address}'\n")
    assert {port for port, _ in config.own_tcp_ports(settings)} == ports


def test_a_runtime_of_a_later_version_is_a_warning(tmp_path: Path) -> None:
    """The file may name it, and the owner hears that nothing will run in it."""
    text = "config executor\n\tlist runtime 'docker'\nconfig forwarder\n\toption blob_dir '/x/blobs'\n"
    assert only_problem(tmp_path, text) == (
        "picasso:2: warning: @executor[0].runtime: this version has no docker runtime: no service can run; write auto"
    )


def test_a_reload_takes_what_counts_at_once(tmp_path: Path) -> None:
    """Neighbours, policy and limits are the new ones, a spent token is no change, and all else waits."""
    before = settings_of(
        tmp_path, f"config gateway\n\toption network '/guifi/sants'\n\toption token '{TOKEN}'\nconfig executor\n"
    )
    text = "config gateway\n\toption network '/guifi/sants'\n{}config policy\n\tlist allow_port '9000'\n"
    after = settings_of(tmp_path, text.format("") + "config executor\n\toption cpu '0.5'\n")
    assert config.reloaded(before, after) == after
    other = settings_of(tmp_path, text.format("\toption zone 'z'\n"))
    assert config.reloaded(before, other) == replace(other, gateway=after.gateway)
