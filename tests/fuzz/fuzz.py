"""Coverage-guided fuzzing of what reads bytes from the network.

    python -m tests.fuzz.fuzz --inputs 1000000          every target, a process each
    python -m tests.fuzz.fuzz --only forwarder --seconds 60

Where atheris is not installed (it has no wheel for every machine), inputs are mutations of the seeds, without coverage.
A finding ends its target with the traceback and the input in hexadecimal.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
INPUT_MAX_BYTES = 4096
# What one input may take before it counts as a hang, and the process in all before it counts as a leak.
HANG_S, MEMORY_MB = 5, 1024
_MODULE = "tests.fuzz.fuzz"
_TARGETS = "tests.fuzz.targets"


def run(target: str, inputs: int, seconds: int, seed: int, unguided: bool = False) -> subprocess.CompletedProcess[str]:
    """One target in a process of its own, for so many inputs or seconds, whatever comes first; status 0: no finding."""
    limits = ["--inputs", str(inputs), "--seconds", str(seconds), "--seed", str(seed)]
    with tempfile.TemporaryDirectory(prefix="picasso-fuzz-") as corpus:
        command = [
            sys.executable,
            "-m",
            _MODULE,
            "--one",
            target,
            "--corpus",
            corpus,
            *limits,
            *["--unguided"] * unguided,
        ]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def run_guided(target: str, inputs: int, seconds: int, seed: int, corpus: Path) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["gateway"]):
        targets = importlib.import_module(_TARGETS)
    for number, wire in enumerate(targets.find(target).seeds()):
        (corpus / str(number)).write_bytes(wire)
    options = {
        "runs": inputs,
        "max_total_time": seconds,
        "seed": seed,
        "max_len": INPUT_MAX_BYTES,
        "timeout": HANG_S,
        "rss_limit_mb": MEMORY_MB,
        "artifact_prefix": f"{corpus}/finding-",
        "print_final_stats": 1,
    }
    arguments = [_MODULE, *(f"-{key}={value}" for key, value in options.items()), str(corpus)]
    atheris.Setup(arguments, lambda wire: _call(targets, target, wire))
    atheris.Fuzz()


def run_unguided(target: str, inputs: int, seconds: int, seed: int) -> None:
    """The same with mutations of the seeds alone."""
    targets = importlib.import_module(_TARGETS)
    generator, corpus = random.Random(seed), targets.find(target).seeds()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB << 20, MEMORY_MB << 20))
    deadline = time.monotonic() + seconds if seconds else float("inf")
    done = 0
    while done < inputs and time.monotonic() < deadline:
        signal.alarm(HANG_S)
        _call(targets, target, mutate(generator, corpus))
        done += 1
    print(f"Done {done} runs", file=sys.stderr)


def _call(targets: Any, target: str, wire: bytes) -> None:
    try:
        targets.call(target, wire)
    except BaseException:
        print(f"finding in {target}: {wire.hex()}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        raise


def mutate(generator: random.Random, corpus: list[bytes]) -> bytes:
    """A seed with a few bytes changed, removed, repeated or taken from another one."""
    wire = bytearray(generator.choice(corpus))
    for _ in range(generator.randint(1, 5)):
        generator.choice(_MUTATIONS)(generator, wire, generator.choice(corpus))
    return bytes(wire[:INPUT_MAX_BYTES])


def _flip(generator: random.Random, wire: bytearray, other: bytes) -> None:
    if wire:
        wire[generator.randrange(len(wire))] ^= 1 << generator.randrange(8)


def _set(generator: random.Random, wire: bytearray, other: bytes) -> None:
    if wire:
        wire[generator.randrange(len(wire))] = generator.choice((0, 1, 5, 6, 7, 0x7F, 0x80, 252, 253, 254, 255))


def _remove(generator: random.Random, wire: bytearray, other: bytes) -> None:
    start = generator.randint(0, len(wire))
    del wire[start : start + generator.randint(1, 8)]


def _repeat(generator: random.Random, wire: bytearray, other: bytes) -> None:
    start = generator.randint(0, len(wire))
    wire[start:start] = wire[start : start + generator.randint(1, 64)]


def _splice(generator: random.Random, wire: bytearray, other: bytes) -> None:
    start = generator.randint(0, len(wire))
    wire[start:] = other[generator.randint(0, len(other)) :]


_MUTATIONS: list[Callable[[random.Random, bytearray, bytes], None]] = [_flip, _set, _remove, _repeat, _splice]


def main() -> int:
    options = _parser().parse_args()
    if options.one:
        limits = options.inputs, options.seconds, options.seed
        if importlib.util.find_spec("atheris") is not None and not options.unguided:
            run_guided(options.one, *limits, options.corpus)
        run_unguided(options.one, *limits)
        return 0
    targets = importlib.import_module(_TARGETS).TARGETS
    failed = 0
    for name in options.only or targets:
        started = time.monotonic()
        inputs = int(options.inputs * targets[name].share)
        done = run(name, inputs, options.seconds, options.seed, options.unguided)
        print(f"{name}: {outcome(done)}, {time.monotonic() - started:.0f} s", flush=True)
        if done.returncode != 0:
            failed += 1
            print(done.stderr[-12_000:])
    return 1 if failed else 0


def outcome(done: subprocess.CompletedProcess[str]) -> str:
    """One line: how many inputs, and whether one of them was too much."""
    runs = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
    count = runs[-1].split()[1] if runs else "?"
    return f"{count} inputs, no finding" if done.returncode == 0 else "FAILED"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--inputs", type=int, default=1_000_000, metavar="N", help="inputs for each target, fewer for dear ones"
    )
    parser.add_argument("--seconds", type=int, default=0, metavar="N", help="at most so long for each; 0: no limit")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--only", action="append", metavar="NAME", help="this target")
    parser.add_argument("--unguided", action="store_true", help="without atheris, as where it is not installed")
    for internal, kind in (("--one", str), ("--corpus", Path)):
        parser.add_argument(internal, type=kind, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
