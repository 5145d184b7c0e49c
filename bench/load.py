"""The load: a consumer that keeps a window of Interests outstanding, a producer that answers them, and a flood.

    python -m bench.load produce --face unix:///run/ndn.sock --prefix /bench --content 8000
    python -m bench.load consume --face tcp4://127.0.0.1:6363 --prefix /bench --content 8000 --count 100000 --pid 4711

Each is one thread on a blocking socket. `consume` prints one JSON object: what came, how long it took, and what each
process of `--pid` has used meanwhile. `produce` registers, prints `ready` and answers until it is terminated.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # this file may be run by its path

from bench.channel import LoadError
from bench.consumer import Consumer
from bench.flood import Flood
from bench.producer import Producer


def main() -> int:
    options = _parser().parse_args()
    run: Callable[[argparse.Namespace], None] = options.action
    try:
        run(options)
    except (LoadError, OSError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 1
    return 0


def _consume(options: argparse.Namespace) -> None:
    consumer = Consumer(options)
    time.sleep(0.1)  # the forwarder makes the face
    print(json.dumps(asdict(consumer.run(options.pid))))


def _flood(options: argparse.Namespace) -> None:
    flood = Flood(options)
    started = time.monotonic()
    print(json.dumps({"sent": flood.run(), "from_s": started, "to_s": time.monotonic()}))


def _produce(options: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    producer = Producer(options)
    producer.register()
    print("ready", flush=True)
    producer.run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    consume = commands.add_parser("consume", help="ask and count")
    produce = commands.add_parser("produce", help="register and answer")
    flood = commands.add_parser("flood", help="ask for what nobody has")
    for command, action in ((consume, _consume), (produce, _produce), (flood, _flood)):
        command.set_defaults(action=action)
        command.add_argument("--face", required=True, metavar="URI", help="unix://…, tcp4://…, udp4://…")
        command.add_argument("--prefix", default="/bench", metavar="NAME")
        command.add_argument("--content", type=int, default=8000, metavar="BYTES", help="content of a Data packet")
    for command in (consume, flood):
        command.add_argument(
            "--count", type=int, default=100_000, metavar="N", help="Interests to be answered, or sent"
        )
        command.add_argument("--start", type=int, default=0, metavar="N", help="the first name's number")
        command.add_argument("--batch", type=int, default=16, metavar="N", help="Interests a write")
    flood.add_argument("--rate", type=int, default=100_000, metavar="N", help="datagrams a second")
    consume.add_argument("--cached", type=int, default=0, metavar="N", help="go round N names; 0: never the same twice")
    consume.add_argument("--window", type=int, default=64, metavar="N", help="Interests outstanding")
    consume.add_argument("--every", type=float, default=0.0, metavar="S", help="also print how far it is, so often")
    consume.add_argument("--full", action="store_true", help="with PIT token, MustBeFresh, lifetime and hop limit")
    consume.add_argument("--complete", action="store_true", help="ask again for what was lost until all has come")
    consume.add_argument("--pid", type=int, action="append", default=[], help="a process to watch")
    return parser


if __name__ == "__main__":
    sys.exit(main())
