"""The command `picasso-controller`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

try:
    from controller import commands
    from controller.errors import ControllerError
    from gateway import options as readers
except KeyboardInterrupt:  # these take a while
    sys.exit(130)

DEFAULT_CONFIG = "/etc/config/picasso-controller"
CONFIG_VARIABLE = "PICASSO_CONTROLLER_CONFIG"
_RESEARCH = {
    "place": "controller.placement.study.command",
    "compare": "controller.placement.study.command_compare",
    "characterise": "controller.placement.study.command_characterise",
}
Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 on success, 1 with a message on standard error, 2 for a command that cannot be understood."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = "".join(arguments[:1])
    try:
        status = _run(command, arguments)
        sys.stdout.flush()
        return status
    except ControllerError as error:
        print(f"picasso-controller {command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        _discard_output()  # whoever read us has seen enough
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"picasso-controller {command}: {where}{error.strerror or error}", file=sys.stderr)
        _discard_output()
        return 1
    except KeyboardInterrupt:
        return 130


def _run(command: str, arguments: list[str]) -> int:
    if command == "demo":
        return int(importlib.import_module("controller.demo.run").main(arguments[1:]))
    parsed = build_parser(command).parse_args(arguments)
    return int(parsed.command(parsed))


def _discard_output() -> None:
    """What standard output still holds goes nowhere, so that the interpreter does not fail to write it at its end."""
    with contextlib.suppress(OSError, ValueError):  # it may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- arguments -----------------------------------------------------------------------------------------------


def build_parser(chosen: str = "") -> argparse.ArgumentParser:
    """The parser of every command; `chosen` is the one in the arguments, if that is known."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG),
        help=f"configuration, default {DEFAULT_CONFIG} or ${CONFIG_VARIABLE}",
    )
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser = argparse.ArgumentParser(
        prog="picasso-controller",
        description="The controller of a PiCasso network: enrols gateways, keeps images, decides where services run.",
        epilog="Start with: picasso-controller init --network /guifi/sants --listen tcp4://0.0.0.0:6363",
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command_name")

    def add(name: str, run: Command, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        command = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=parents)
        command.set_defaults(command=run)
        return command

    _add_init(add("init", commands.init, "make a network: its keys, the configuration, and the gateway beside", common))
    _add_provider(add("provider", commands.provider, "certify a provider, or list them", common, as_json))
    _add_enrol(add("enrol", commands.enrol, "make the token with which a gateway joins", common, as_json))
    revoke = add("revoke", commands.revoke, "trust a gateway no more, for instance a stolen one", common, as_json)
    revoke.add_argument("node", metavar="NODE", help="its name; it may be enrolled again, with a new key")
    _add_run(add("run", commands.run, "run the controller's daemon", common))
    _add_publish(add("publish", commands.publish, "publish an OCI image or any other file", common, as_json))
    _add_deploy(add("deploy", commands.deploy, "have a service run, or no more", common, as_json))
    add("status", commands.status, "ask the running daemon how it is", common, as_json)
    add("nodes", commands.nodes, "list the gateways and their state", common, as_json)
    add("links", commands.links, "list the links and their measured bandwidth", common, as_json)
    add("services", commands.services, "list the services and where they run", common, as_json)
    add("images", commands.images, "list what is published", common, as_json)
    placement = add("placement", commands.placement, "show what is decided, and why", common, as_json)
    placement.add_argument("--history", action="store_true", help="the last decisions and what caused each")
    _add_epoch(
        add("epoch", commands.epoch, "show the epoch, or raise it after a restore from a backup", common, as_json)
    )
    research = {
        "place": add("place", commands.place, "compute a placement on a topology in a file, without a network"),
        "compare": add("compare", commands.compare, "compare the placement algorithms on a topology"),
        "characterise": add(
            "characterise", commands.characterise, "show what a topology, or the live network, is like", common
        ),
    }
    if chosen in research:  # their package brings numpy, for which no other command should wait
        importlib.import_module(_RESEARCH[chosen]).add_arguments(research[chosen])
    add("demo", commands.place, "show a whole network on this machine (see `demo --help`)")
    return parser


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", default="/picasso", metavar="NAME", type=_reader(readers.ndn_name))
    parser.add_argument(
        "--node",
        default=readers.node_of(socket.gethostname()),
        type=_reader(readers.identifier),
        help="name of the gateway beside the controller (%(default)s)",
    )
    parser.add_argument("--directory", type=Path, metavar="DIR", help="keep everything below one directory")
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="URI",
        type=_reader(readers.listen_uri),
        help="where other gateways reach this one, for instance tcp4://0.0.0.0:6363; may be repeated",
    )
    parser.add_argument("--latitude", type=_reader(readers.number(-90, 90)), metavar="DEGREES")
    parser.add_argument("--longitude", type=_reader(readers.number(-180, 180)), metavar="DEGREES")
    parser.add_argument("--zone", type=_reader(readers.identifier), metavar="NAME", help="zone of that gateway")
    parser.add_argument(
        "--provider", action="append", metavar="NAME", help="certify this provider too; may be repeated (main)"
    )


def _add_provider(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("add", "list"))
    parser.add_argument("provider", nargs="?", metavar="NAME", help="with add: the provider to certify")


def _add_enrol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", type=_reader(readers.identifier), metavar="NODE", help="the name the gateway will have")
    parser.add_argument(
        "--expires",
        type=_reader(readers.seconds),
        default=86400.0,
        metavar="TIME",
        help="how long it is good for (24h)",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log-level", choices=levels, default="info", help="what is logged (info)")


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a tar of `docker save`, an OCI layout in a tar, or any file")
    parser.add_argument(
        "--name", default="", metavar="NAME:TAG", help="its name; chooses one if there are several inside"
    )
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help="which image to take (this machine's kind)")
    parser.add_argument("--raw", action="store_true", help="one file, whatever is in it")


def _add_deploy(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("file", type=Path, nargs="?", metavar="FILE.yaml", help="a service file, see examples/hello.yaml")
    what.add_argument("--remove", metavar="NAME", help="the service that is to run no more")


def _add_epoch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raise", action="store_true", dest="raise_", help="start a new epoch; needs the anchor's key")
    parser.add_argument("--to", type=int, metavar="N", help="the new epoch, if it is known that a greater one was used")


def _reader(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A value read as in the configuration file, with its message."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from error

    return convert
