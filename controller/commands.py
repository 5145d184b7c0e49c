"""What each command of `picasso-controller` does."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from controller import control, workspace
from controller.control import NotRunning
from controller.errors import ControllerError, RepositoryInUse
from controller.settings import Settings

# Below this no bar is drawn: it would be gone before it is seen.
PROGRESS_FROM_BYTES = 16 << 20
# How long a controller on a small machine takes to start.
START_PATIENCE_S = 10.0


# --- commands that write -------------------------------------------------------------------------------------


def init(arguments: argparse.Namespace) -> int:
    from controller.initialise import Places, Wishes, initialise

    places = Places.below(arguments.directory) if arguments.directory else Places.system(arguments.config)
    wishes = Wishes(
        arguments.network,
        arguments.node,
        tuple(dict.fromkeys(["main", *(arguments.provider or [])])),
        tuple(arguments.listen),
        arguments.zone or "",
        arguments.latitude,
        arguments.longitude,
    )
    outcome = initialise(places, wishes)
    for path in outcome.made:
        print(f"made  {path}")
    for path in outcome.kept:
        print(f"kept  {path}")
    settings = outcome.settings
    print(
        f"\nThe network is {settings.network}, its controller's gateway is {settings.node}. What to do next:\n"
        f"  1. Keep a copy of {settings.state_dir}/anchor.key in a safe place; it may be removed from here, and is\n"
        "     needed again only for new providers and for `epoch --raise`.\n"
        f"  2. picasso-gateway run --config {places.gateway_config}\n"
        f"  3. picasso-controller run --config {settings.path}\n"
        f"  4. picasso-controller enrol NODE --config {settings.path}\n"
        "     gives the token that goes into the file of another gateway"
    )
    if not arguments.listen and places.gateway_config in outcome.made:
        print(f"     No other gateway reaches this one yet: `list listen` in {places.gateway_config} opens a port.")
    return 0


def provider(arguments: argparse.Namespace) -> int:
    from controller import authority

    settings = workspace.load_settings(arguments.config)
    directory = settings.state_dir / "providers"
    if arguments.action == "list":
        rows = [
            {"provider": p.stem, "has_key": p.with_suffix(".key").exists()} for p in sorted(directory.glob("*.ndn"))
        ]
        _print_rows(arguments, rows, lambda: print("\n".join(str(row["provider"]) for row in rows)))
        return 0
    if not arguments.provider:
        raise ControllerError("add needs the provider's name: picasso-controller provider add NAME")
    made = authority.make_provider(settings.state_dir, workspace.network_of(settings), arguments.provider, time.time())
    result = {"provider": arguments.provider, "made": [str(path) for path in made]}
    text = (
        f"made {', '.join(result['made'])}" if made else f"{arguments.provider} is certified already; nothing changed"
    )
    _print_rows(arguments, result, lambda: print(text))
    if made:
        _tell_daemon(settings, f"new provider {arguments.provider}")
    return 0


def enrol(arguments: argparse.Namespace) -> int:
    from controller.enrolment import SECRET_BYTES
    from gateway.protocol.trust import Token

    settings = workspace.load_settings(arguments.config)
    with _open(settings) as store:
        keys = workspace.open_authority(settings, store)
        token = Token(settings.network, secrets.token_hex(8), secrets.token_bytes(SECRET_BYTES), keys.anchor_sha256)
        expires = time.time() + arguments.expires
        known = store.node(arguments.node)
        store.add_token(token.id, arguments.node, token.secret, expires)
    row = {"node": arguments.node, "token": token.format(), "expires": expires, "enrolled": known is not None}
    _print_rows(arguments, row, lambda: print(token.format()))
    if not arguments.json:
        until = time.strftime("%F %T", time.localtime(expires))
        print(
            f"# good once, for node {arguments.node}, until {until}; on that gateway: "
            "uci set picasso.gateway.token=… and restart it",
            file=sys.stderr,
        )
        if known is not None:
            print(
                f"# {arguments.node} is enrolled already, since {_moment(known.enrolled)}: the token is of use only if "
                f"it lost its key; `picasso-controller revoke {arguments.node}` first if somebody else may have that",
                file=sys.stderr,
            )
    return 0


def revoke(arguments: argparse.Namespace) -> int:
    from controller import authority

    settings = workspace.load_settings(arguments.config)
    with _open(settings) as store:
        row = store.node(arguments.node)
        if row is None:
            raise ControllerError(f"node {arguments.node!r} is not enrolled")
        store.revoke_node(arguments.node, authority.key_hash(row.certificate))
    result = {"node": arguments.node, "revoked": True}
    _print_rows(
        arguments, result, lambda: print(f"{arguments.node}: revoked; every gateway learns it with the next head")
    )
    _tell_daemon(settings, f"{arguments.node} revoked", quiet=arguments.json)
    return 0


def publish(arguments: argparse.Namespace) -> int:
    from controller.repository.platform import Platform

    settings = workspace.load_settings(arguments.config)
    path = arguments.file.absolute()
    if not path.exists():
        raise ControllerError(f"{path}: no such file")
    if arguments.platform:
        Platform.parse(arguments.platform)
    request = {"path": str(path), "name": arguments.name, "platform": arguments.platform, "raw": arguments.raw}
    with _progress(path, arguments.json) as progress:
        result = _publish(settings, request, progress)
    _print_rows(arguments, result, lambda: _print_published(result))
    return 0


def _publish(settings: Settings, request: dict[str, Any], progress: control.Report | None) -> dict[str, Any]:
    """By the daemon where one runs; one that is starting has the repository before it answers."""
    deadline = time.monotonic() + START_PATIENCE_S
    while True:
        try:
            found: dict[str, Any] = control.ask(
                workspace.control_path(settings), {"command": "publish"} | request, progress
            )
            return found
        except NotRunning:
            try:
                return _publish_here(settings, request, progress)
            except RepositoryInUse:
                if time.monotonic() >= deadline:
                    raise
        time.sleep(0.1)


def _publish_here(settings: Settings, request: dict[str, Any], progress: control.Report | None) -> dict[str, Any]:
    """Publishes without the daemon, which serves it when it starts."""
    from controller.repository.platform import Platform

    platform = Platform.parse(request["platform"]) if request["platform"] else None
    with (
        workspace.repository_lock(settings),
        _open(settings) as store,
        closing(workspace.open_blobs(settings)) as blobs,
    ):
        repository = workspace.open_repository(settings, blobs, store)
        published = repository.publish(Path(request["path"]), request["name"], platform, request["raw"], progress)
    return published.to_json(workspace.network_of(settings))


def _print_published(result: dict[str, Any]) -> None:
    from controller.tables import size

    kind = f"image for {result['platform']}" if result["kind"] == "image" else "file"
    print(f"{result['reference']}: {kind}, {size(result['size_bytes'])}, {size(result['new_bytes'])} of it new here")
    for blob in result["blobs"]:
        print(f"  {blob['sha256']}  {size(blob['size_bytes']):>10}  {'new' if blob['new'] else 'was there'}")
    print(result["name"])


def deploy(arguments: argparse.Namespace) -> int:
    settings = workspace.load_settings(arguments.config)
    with _open(settings) as store:
        if arguments.remove:
            if not store.undeploy(arguments.remove):
                raise ControllerError(f"service {arguments.remove!r} is not deployed")
            return _report_deployment(arguments, settings, {"service": arguments.remove, "removed": True})
        from controller.repository import deployment, service_file

        wanted = service_file.load(arguments.file)
        keys = workspace.open_authority(settings, store)
        version, changed = deployment.deploy(store, keys, wanted, time.time())
    return _report_deployment(arguments, settings, {"service": wanted.name, "version": version, "changed": changed})


def _report_deployment(arguments: argparse.Namespace, settings: Settings, row: dict[str, Any]) -> int:
    action = "removed" if row.get("removed") else f"version {row['version']}"
    answer = _tell_daemon(settings, f"{row['service']} {action}", quiet=arguments.json)
    row |= {"head": None if answer is None else answer["head"]}
    state = "" if row.get("changed", True) else ", which is deployed already"
    text = f"{row['service']}: {action}{state}"
    if answer is not None and answer["head"]:
        text += f"; decided in head {answer['head'][0]}.{answer['head'][1]}, see `picasso-controller placement`"
    _print_rows(arguments, row, lambda: print(text))
    return 0


def epoch(arguments: argparse.Namespace) -> int:
    if arguments.to is not None and not arguments.raise_:
        raise ControllerError(f"--to {arguments.to} changes nothing without --raise: epoch --raise --to {arguments.to}")
    settings = workspace.load_settings(arguments.config)
    with _open(settings) as store:
        keys = workspace.open_authority(settings, store)
        head = store.head()
        epoch = 0 if arguments.raise_ else keys.epoch()
        if arguments.raise_:
            known = keys.known_epoch()
            epoch = max(known, head.epoch if head is not None else 0) + 1
            if arguments.to is not None and arguments.to < epoch:
                raise ControllerError(
                    f"epoch {arguments.to} is not greater than what was used; {epoch} or more is accepted"
                )
            epoch = arguments.to or epoch
            keys.raise_epoch(epoch)
    row = {"epoch": epoch, "raised": arguments.raise_}
    text = f"epoch {epoch}" + (": gateways accept its heads whatever version they hold" if arguments.raise_ else "")
    _print_rows(arguments, row, lambda: print(text))
    if arguments.raise_:
        _tell_daemon(settings, f"epoch {epoch}", quiet=arguments.json)
    return 0


def run(arguments: argparse.Namespace) -> int:
    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    from controller.daemon import serve

    asyncio.run(serve(workspace.load_settings(arguments.config)))
    return 0


# --- commands that read --------------------------------------------------------------------------------------


def status(arguments: argparse.Namespace) -> int:
    settings = workspace.load_settings(arguments.config)
    try:
        status = control.ask(workspace.control_path(settings), {"command": "status"})
    except NotRunning as error:
        raise ControllerError(f"{error}; start it with: picasso-controller run --config {settings.path}") from error
    lines = [f"{name:10} {value}" for name, value in status.items() if value not in ("", None, {}, [])]
    _print_rows(arguments, status, lambda: print("\n".join(lines)))
    return 0


def nodes(arguments: argparse.Namespace) -> int:
    from controller import listings, tables

    with _listing(arguments) as (settings, store):
        rows = listings.nodes(store, settings.report_interval_s, time.time())
    _print_rows(arguments, rows, lambda: tables.print_nodes(_console(), rows))
    return 0


def links(arguments: argparse.Namespace) -> int:
    from controller import listings, tables

    with _listing(arguments) as (_, store):
        rows = listings.links(store, time.time())
    _print_rows(arguments, rows, lambda: tables.print_links(_console(), rows))
    return 0


def services(arguments: argparse.Namespace) -> int:
    from controller import listings, tables

    with _listing(arguments) as (_, store):
        rows = listings.services(store)
    _print_rows(arguments, rows, lambda: tables.print_services(_console(), rows))
    return 0


def images(arguments: argparse.Namespace) -> int:
    from controller import listings, tables

    with _listing(arguments) as (settings, store):
        rows = listings.images(store, workspace.network_of(settings))
    _print_rows(arguments, rows, lambda: tables.print_images(_console(), rows))
    return 0


def placement(arguments: argparse.Namespace) -> int:
    from controller import listings, tables

    with _listing(arguments) as (_, store):
        if arguments.history:
            history = listings.heads(store)
            lines = [f"{row['epoch']}.{row['version']}  {_moment(row['issued'])}  {row['why']}" for row in history]
            _print_rows(arguments, history, lambda: print("\n".join(lines)))
            return 0
        decided = listings.placement(store)
    stamp = _moment(decided["head"]["issued"]) if decided["head"] else ""
    _print_rows(arguments, decided, lambda: tables.print_placement(_console(), decided, stamp))
    return 0


def place(arguments: argparse.Namespace) -> int:
    from controller.placement.study import command

    return command.run(arguments)


def compare(arguments: argparse.Namespace) -> int:
    from controller.placement.study import command_compare

    return command_compare.run(arguments)


def characterise(arguments: argparse.Namespace) -> int:
    from controller.placement.study import command_characterise

    if arguments.topology is not None:
        return command_characterise.run(arguments)
    from controller.observed import observed

    with _listing(arguments) as (settings, store):
        topology, past = observed(store, settings.report_interval_s, time.time())
    return command_characterise.run_on(arguments, topology, past)


# --- shared --------------------------------------------------------------------------------------------------


@contextmanager
def _open(settings: Settings) -> Iterator[Any]:
    with closing(workspace.open_store(settings)) as store:
        yield store


@contextmanager
def _listing(arguments: argparse.Namespace) -> Iterator[Any]:
    """The settings and the open database; says so when the daemon does not run, because then nothing is new in it."""
    settings = workspace.load_settings(arguments.config)
    try:
        control.ask(workspace.control_path(settings), {"command": "status"})
    except NotRunning:
        print("The controller is not running: this is what it stored last.", file=sys.stderr)
    except ControllerError as error:
        print(f"{error}; this is what it stored last.", file=sys.stderr)
    with _open(settings) as store:
        yield settings, store


def _tell_daemon(settings: Settings, why: str, quiet: bool = False) -> Any:
    """Has the daemon look at the database again; None, with a note, when none runs."""
    try:
        return control.ask(workspace.control_path(settings), {"command": "refresh", "why": why})
    except NotRunning:
        if not quiet:
            print("The controller is not running: this takes effect when it starts.", file=sys.stderr)
        return None


def _print_rows(arguments: argparse.Namespace, rows: Any, as_text: Callable[[], None]) -> None:
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        as_text()


def _console() -> Any:
    from rich.console import Console

    # A pipe gets whole rows, not rows folded to a width that nobody has.
    return Console() if sys.stdout.isatty() else Console(width=240)


def _moment(unix_time: float) -> str:
    return time.strftime("%F %T", time.localtime(unix_time))


@contextmanager
def _progress(path: Path, quiet: bool) -> Iterator[control.Report | None]:
    """A bar for big files, on standard error."""
    if quiet or not sys.stderr.isatty() or path.stat().st_size < PROGRESS_FROM_BYTES:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(path.name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
