"""The command `picasso-gateway`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway import __version__, lean

DEFAULT_CONFIG = Path("/etc/config/picasso")
CONFIG_VARIABLE = "PICASSO_CONFIG"
DATASETS = {
    "status": "what this gateway is, holds, runs and refuses",
    "services": "the services of the network and those that run here",
    "links": "the neighbours and what was measured of the way to them",
    "faces": "the forwarder's faces and their counters",
    "routes": "the prefixes that it can reach",
    "cache": "what is stored, in memory and on disk",
    "wants": "which blobs wait for whom, since when, and how much of them has come",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 on success, 1 when it failed, 2 when it was called wrongly or the configuration is wrong."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    lean.import_without_openssl()
    try:
        result: int = options.action(options)
        return result
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _formatter(prog: str) -> argparse.HelpFormatter:
    """As argparse would make it; to find the terminal's width it loads half a megabyte of libraries, even to run."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        columns = 80
    return argparse.HelpFormatter(prog, width=columns - 2)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG)),
        metavar="FILE",
        help=f"the UCI file (default: ${CONFIG_VARIABLE} or {DEFAULT_CONFIG})",
    )
    common.add_argument("-v", "--verbose", action="store_true", help="log every detail")
    parser = argparse.ArgumentParser(
        prog="picasso-gateway",
        description="A gateway that caches, measures and runs services at the edge.",
        formatter_class=_formatter,
    )
    parser.add_argument("--version", action="version", version=f"picasso-gateway {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, action: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=[common], help=text, description=text.capitalize() + ".")
        command.set_defaults(action=action)
        return command

    add("run", _run, "run the gateway until it is told to stop")
    add("executor", _executor, "run only the process that starts services (run starts it by itself)")
    add("check", _check, "check the configuration and list every error with its line")
    for name, text in DATASETS.items():
        command = add(name, _show, "show " + text)
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(dataset=name)
    export = add("export", _stick, "put the blobs that others wait for, and all wants, on a USB stick")
    export.add_argument("directory", type=Path, metavar="DIR", help="a directory on the stick")
    export.add_argument("--wants-of", action="append", default=[], metavar="NODE", help="only what this node waits for")
    export.set_defaults(stick="export")
    import_ = add("import", _stick, "take from a USB stick what is wanted here or kept for others")
    import_.add_argument("directory", type=Path, metavar="DIR", help="a directory that export has made")
    import_.set_defaults(stick="import", wants_of=[])
    fetch = add("fetch", _fetch, "fetch segmented content by its name")
    fetch.add_argument("name", metavar="NAME", help="an NDN name, for instance /guifi/sants/blob/<sha256>")
    fetch.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="where to write it")
    fetch.add_argument("--hint", action="append", default=[], metavar="NAME", help="ask this node's name for it")
    fetch.add_argument("--face", metavar="URI", help="the forwarder to ask (default: this gateway's unix socket)")
    return parser


def _load(options: argparse.Namespace) -> Any:
    """The settings, or None after every problem was printed."""
    from gateway import config

    settings, problems = config.load(options.config)
    for problem in problems:
        print(problem, file=sys.stderr)
    return settings


def _run(options: argparse.Namespace) -> int:
    settings = _load(options)
    if settings is None:
        return 2
    from gateway import daemon

    return daemon.main(settings)


def _executor(options: argparse.Namespace) -> int:
    settings = _load(options)
    if settings is None:
        return 2
    from gateway.executor import agent

    lean.hash_in_bulk()
    return agent.main(settings)


def _check(options: argparse.Namespace) -> int:
    from gateway import config

    settings, problems = config.load(options.config)
    for problem in problems:
        print(problem)
    errors = sum(problem.severity == "error" for problem in problems)
    print(f"{options.config}: {errors} errors, {len(problems) - errors} warnings")
    return 0 if settings is not None else 2


def _show(options: argparse.Namespace) -> int:
    from gateway import control, show

    settings = _load(options)
    if settings is None:
        return 2
    try:
        result = control.ask(settings.gateway.run_dir / "control.sock", options.dataset)
    except (ConnectionError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(result, indent=2) if options.json else show.render(options.dataset, result))
    return 0


def _stick(options: argparse.Namespace) -> int:
    settings = _load(options)
    uri = _unix_uri(settings, "") if settings is not None else None
    if uri is None:
        return 2
    lean.hash_in_bulk()
    from gateway import stick

    socket = settings.gateway.run_dir / "control.sock"
    return stick.run(options.stick, socket, uri, options.directory, options.wants_of)


def _unix_uri(settings: Any, way_out: str) -> str | None:
    """The gateway's socket for applications; None after it was said that there is none."""
    uri = next((u for u in settings.forwarder.listen if u.startswith("unix:")), None)
    if uri is None:
        print(f"forwarder: no `list listen 'unix://…'` to ask through{way_out}", file=sys.stderr)
    return uri


def _fetch(options: argparse.Namespace) -> int:
    import asyncio

    lean.hash_in_bulk()
    from gateway import fetch

    uri = options.face
    if uri is None:
        settings = _load(options)
        uri = _unix_uri(settings, "; name a forwarder with --face") if settings is not None else None
        if uri is None:
            return 2
    return asyncio.run(fetch.fetch_to_file(uri, options.name, options.output, options.hint))
