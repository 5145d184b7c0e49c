"""`picasso-controller init`: the keys of a network, the controller's configuration, and the gateway beside it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller import authority, workspace
from controller.authority import Authority, make_private, replace
from controller.errors import ControllerError
from controller.settings import Settings
from gateway import uci
from gateway.protocol import names


@dataclass(frozen=True, slots=True)
class Places:
    """Where the files of a controller and of its gateway go."""

    config: Path
    state_dir: Path
    gateway_config: Path
    gateway_state_dir: Path
    blob_dir: Path
    run_dir: Path

    @classmethod
    def system(cls, config: Path) -> Places:
        """On a machine that is a controller: the gateway's files are where picasso-gateway looks for them."""
        return cls(
            config,
            Path("/var/lib/picasso-controller"),
            config.parent / "picasso",
            Path("/var/lib/picasso"),
            Path("/var/lib/picasso/blobs"),
            Path("/run/picasso"),
        )

    @classmethod
    def below(cls, directory: Path) -> Places:
        """Everything below one directory."""
        root = directory.absolute()
        gateway = root / "gateway"
        return cls(
            root / "picasso-controller",
            root / "state",
            root / "picasso",
            gateway,
            gateway / "blobs",
            root / "run",
        )


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator asks for; the gateway's place is in degrees."""

    network: str
    node: str
    providers: Sequence[str] = ("main",)
    listen: Sequence[str] = ()
    zone: str = ""
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    settings: Settings
    made: tuple[Path, ...]
    kept: tuple[Path, ...]


def initialise(places: Places, wishes: Wishes, now: float | None = None) -> Outcome:
    """Makes what is missing and keeps what is there; raises ControllerError when that does not fit the wishes."""
    moment = time.time() if now is None else now
    if (wishes.latitude is None) != (wishes.longitude is None):
        raise ControllerError("--latitude and --longitude go together; one is missing")
    expected = [
        places.config,
        places.gateway_config,
        places.state_dir / "anchor.ndn",
        places.state_dir / "controller.key",
    ]
    kept = [path for path in expected if path.exists()]
    made = _write_new(places.config, controller_uci(places, wishes))
    settings = workspace.load_settings(places.config)
    _check_kept(settings, wishes)
    network = workspace.network_of(settings)
    make_private(settings.state_dir)
    made += authority.make_network(settings.state_dir, network, moment)
    for provider in wishes.providers:
        made += authority.make_provider(settings.state_dir, network, provider, moment)
    made += _write_new(places.gateway_config, gateway_uci(places, settings, wishes))
    made += _enrol_gateway(settings, _identity_dir(places, settings), moment)
    return Outcome(settings, tuple(made), tuple(kept))


def _check_kept(settings: Settings, wishes: Wishes) -> None:
    for option, kept, wish in (("network", settings.network, wishes.network), ("node", settings.node, wishes.node)):
        if kept != wish:
            raise ControllerError(
                f"{settings.path} is kept, and its {option} is {kept!r}, not {wish!r}; "
                f"give --{option} {kept}, or use another directory for another network"
            )


def _identity_dir(places: Places, settings: Settings) -> Path:
    """Where the gateway keeps its identity, as its configuration says, which may have been there before."""
    try:
        document = uci.parse(places.gateway_config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ControllerError(f"{places.gateway_config}: {error}") from error
    section = document.find("@gateway[0]")
    for name, expected in (("network", settings.network), ("node", settings.node)):
        option = section.get(name) if section is not None else None
        if option is not None and option.values[-1] != expected:
            raise ControllerError(
                f"{places.gateway_config}:{option.line} is kept, and its {name} is {option.values[-1]!r}, "
                f"not {expected!r}"
            )
    option = section.get("state_dir") if section is not None else None
    return Path(option.values[-1]) if option is not None else places.gateway_state_dir


def _enrol_gateway(settings: Settings, identity_dir: Path, now: float) -> list[Path]:
    store = workspace.open_store(settings)
    try:
        keys = Authority(settings.state_dir, names.Network(settings.network))
        made = authority.make_gateway_identity(keys, identity_dir, settings.node, now)
        if store.node(settings.node) is None:
            store.add_node(settings.node, authority.read(identity_dir / "identity.ndn"), now)
        return made
    finally:
        store.close()


def _write_new(path: Path, text: str) -> list[Path]:
    if path.exists():
        return []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ControllerError(f"{path.parent}: {error.strerror}") from error
    replace(path, text.encode())
    return [path]


def controller_uci(places: Places, wishes: Wishes) -> str:
    """The controller's configuration."""
    options = {
        "network": wishes.network,
        "node": wishes.node,
        "state_dir": str(places.state_dir),
        "gateway": f"unix://{places.run_dir}/ndn.sock",
    }
    return _section("controller", options)


def gateway_uci(places: Places, settings: Settings, wishes: Wishes) -> str:
    """The configuration of the gateway beside the controller."""
    gateway = {
        "network": settings.network,
        "node": settings.node,
        "zone": wishes.zone,
        "latitude": "" if wishes.latitude is None else str(wishes.latitude),
        "longitude": "" if wishes.longitude is None else str(wishes.longitude),
        "state_dir": str(places.gateway_state_dir),
        "run_dir": str(places.run_dir),
    }
    forwarder = {"blob_dir": str(places.blob_dir)}
    listen = [f"unix://{places.run_dir}/ndn.sock", *wishes.listen]
    return "\n".join(
        (
            _section("gateway", gateway),
            _section("controller", {"interval": f"{settings.report_interval_s:g}s"}),
            _section("forwarder", forwarder, ("listen", listen)),
        )
    )


def _section(kind: str, options: dict[str, str], items: tuple[str, Iterable[str]] = ("", ())) -> str:
    lines = [f"config {kind} {uci.quote(kind)}"]
    lines += [f"\toption {name} {uci.quote(value)}" for name, value in options.items() if value]
    lines += [f"\tlist {items[0]} {uci.quote(value)}" for value in items[1]]
    return "\n".join(lines) + "\n"
