"""`picasso-controller demo`: a community network on this machine, from nothing to the loss of its controller."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from controller.demo.asking import Unanswered
from controller.demo.network import DemoNetwork, StepFailed, free_subnet
from controller.demo.plan import MAXIMUM_GATEWAYS
from controller.demo.processes import interrupt_on_signals, signals_ignored
from controller.demo.report import Results, Screen
from controller.demo.steps import Story

MINIMUM_WIDTH = 132  # the tables are no use when they are folded, as they are where nobody watches


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `picasso-controller demo`."""
    parser.add_argument("--nodes", type=int, default=8, metavar="N", help="number of gateways, 3 or more (8)")
    parser.add_argument("--services", type=int, default=2, metavar="S", help="number of services, 2 replicas each (2)")
    parser.add_argument("--seed", type=int, default=6, metavar="K", help="seed of the network (6)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to this file")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep configurations, logs and state in this directory"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demonstration: 0 when every step worked, 1 when one failed, 2 for wrong arguments, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="picasso-controller demo", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(arguments: argparse.Namespace) -> int:
    """Runs the demonstration with parsed arguments; leaves nothing running, also when it fails or is interrupted."""
    if problem := _problem(arguments):
        print(f"picasso-controller demo: {problem}", file=sys.stderr)
        return 2
    started = time.monotonic()
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(MINIMUM_WIDTH, console.width))
    screen = Screen(console, started)
    interrupt_on_signals()
    directory = _directory(arguments.keep)
    try:
        results = _tell(arguments, directory, screen)
    except StepFailed as failure:
        screen.failure(str(failure))
        return 1
    except KeyboardInterrupt:
        screen.failure("interrupted; everything that was started is stopped")
        return 130
    finally:
        if arguments.keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    results.seconds = time.monotonic() - started
    screen.verdict(results)
    if results.failures and arguments.keep is None:
        screen.note("with --keep DIR the next run keeps every configuration and log")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results.to_json(), indent=2) + "\n", encoding="utf-8")
    return 1 if results.failures else 0


def _problem(arguments: argparse.Namespace) -> str:
    if not 3 <= arguments.nodes <= MAXIMUM_GATEWAYS:
        return f"--nodes is {arguments.nodes}; 3 to {MAXIMUM_GATEWAYS} gateways are accepted"
    if not 1 <= arguments.services <= 50:
        return f"--services is {arguments.services}; 1 to 50 are accepted"
    if arguments.seed < 0:
        return f"--seed is {arguments.seed}; 0 and above are accepted"
    if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
        return f"--json {arguments.json}: there is no directory {arguments.json.absolute().parent}"
    if arguments.keep is not None and arguments.keep.exists() and any(arguments.keep.iterdir()):
        return f"--keep {arguments.keep}: is not empty; name a new directory"
    return ""


def _directory(keep: Path | None) -> Path:
    if keep is None:
        directory = Path(tempfile.mkdtemp(prefix="picasso-demo-"))
        directory.chmod(0o711)  # gateways that root starts become the user `picasso`, who must get to their folders
        return directory
    keep.mkdir(parents=True, exist_ok=True)
    return keep.absolute()


def _tell(arguments: argparse.Namespace, directory: Path, screen: Screen) -> Results:
    """The story and its end; what went wrong is among the failures of the results."""
    with free_subnet() as subnet:
        network = DemoNetwork(arguments.nodes, arguments.seed, directory, subnet)
        story = Story(network, arguments.services, screen)
        try:
            story.tell()
        except (StepFailed, Unanswered) as failure:
            story.results.failures.append(str(failure))
        finally:
            screen.step("Everything is being stopped")
            with signals_ignored():
                story.results.failures += network.stop()
        return story.results
