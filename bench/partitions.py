"""Measures fluvio_cffi by the number of partitions and the distance to the server.

    python bench/partitions.py [--quick] [--against NAME TREE LIBRARY] [--write docs/benchmarks-partitions.md]

Each run is a process of its own (bench/ours.py on asyncio), with a server and a topic of its own; what is
compared takes turns. `--against` measures another version as well: NAME is what its rows are called, TREE
its source tree, LIBRARY its compiled library. The server is that of this tree in all of them. Our client
only: the `fluvio` crate loses records where answers are cut, and the official client has no batches.

Nothing is judged by time: the status is 0 unless something failed, whatever the figures are.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
sys.path.insert(0, str(ROOT))

import machine  # noqa: E402
from server import Server  # noqa: E402

from scripts.environments import EVERYDAY, python_of  # noqa: E402

PARTITIONS = (1, 10, 100, 1000)
LATENCIES = (0, 20)
SIZE = 100
CASES = {"produce": "produce, send_many", "batches": "consume, batches"}
# What is read takes a second or more: to open a thousand streams takes a part of one, and is no rate.
COUNTS = {"produce": 1_000_000, "batches": 5_000_000}
WORKER_SECONDS = 300
# From this load on, what is measured had to share the machine.
BUSY = 1.5


@dataclass(frozen=True)
class Version:
    """A version of the client."""

    name: str
    tree: Path
    library: Path


@dataclass
class Row:
    """One version at one number of partitions and one distance."""

    case: str
    version: Version
    partitions: int
    latency: int
    results: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def median(self, what: str) -> float:
        values = {
            "rate": lambda result: result["count"] / result["seconds"],
            "cpu": lambda result: result["cpu"] / result["count"] * 1e6,
            "server": lambda result: result["server_cpu"] / result["count"] * 1e6,
        }
        return statistics.median(map(values[what], self.results))


async def fill(endpoint: str, topic: str, partitions: int, count: int) -> None:
    """A topic with `count` records, the same number in each partition; empty for 0."""
    import fluvio_cffi

    async with fluvio_cffi.connect(endpoint) as client:
        await client.admin.topics.create(topic, partitions=partitions)
        if count:
            values = [b"%0*d" % (SIZE, number) for number in range(count // partitions)]
            async with client.producer(topic) as producer:
                sends = (producer.send_many(values, partition=partition) for partition in range(partitions))
                await asyncio.gather(*sends)


def measure(version: Version, task: dict[str, Any]) -> dict[str, Any]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(version.tree),
        "FLUVIO_CFFI_LIBRARY": str(version.library),
    }
    finished = subprocess.run(
        [str(python_of(EVERYDAY)), str(BENCH / "ours.py"), json.dumps(task)],
        capture_output=True,
        text=True,
        timeout=WORKER_SECONDS,
        env=environment,
    )
    if finished.returncode != 0:
        raise RuntimeError((finished.stderr.strip().splitlines() or ["no word"])[-1])
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[0])
    return result


def run(row: Row, server: Server, topic: str, count: int) -> None:
    task = {
        "case": row.case,
        "backend": "asyncio",
        "endpoint": server.endpoint,
        "server_pid": server.pid,
        "topic": topic,
        "size": SIZE,
        "count": count,
        "warm": count // 5,
        "chunk": 50_000,
    }
    label = f"{CASES[row.case]}, {row.partitions} partitions, {row.latency} ms, {row.version.name}"
    try:
        row.results.append(measure(row.version, task))
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        row.failures.append(str(error))
        say(f"{label}: FAILED, {error}")
        return
    result = row.results[-1]
    say(f"{label}: {result['count'] / result['seconds']:,.0f} records/s, {result['cpu']:.2f} s CPU")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(case: str, rows: list[Row]) -> str:
    lines = [
        f"### {CASES[case].capitalize()}",
        "",
        "| partitions | latency | version | M records/s | of 1 | CPU s/M | server CPU s/M | failed |",
        "|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    alone = {
        (row.version, row.latency): row.median("rate") for row in rows if row.partitions == 1 and row.results
    }
    for row in rows:
        facts = [str(row.partitions), f"{row.latency} ms", row.version.name]
        if row.results:
            rate = row.median("rate")
            share = alone.get((row.version, row.latency))
            facts += [f"{rate / 1e6:.3f}", f"{rate / share:.0%}" if share else "-"]
            facts += [f"{row.median('cpu'):.2f}", f"{row.median('server'):.2f}"]
        else:
            facts += ["-"] * 4
        lines.append(f"| {' | '.join(facts)} | {len(row.failures) or ''} |")
    return "\n".join(lines)


def document(rows: list[Row], others: list[list[str]], repeat: int, load: float) -> str:
    # Where the other versions lie is nobody's business.
    places = {text for _, tree, library in others for text in (tree, library)}
    command = shlex.join(text for text in sys.argv[1:] if text not in places)
    facts = machine.describe({"everyday": python_of(EVERYDAY)})
    parts = [
        "# Benchmarks by partitions and latency",
        "fluvio_cffi on asyncio against the development server on the same machine, with 1 to 1,000 "
        "partitions on one SPU, and with a server that is near or 20 ms away (`--latency`: every answer "
        f"takes so much longer, and as much passes per second). Records of {SIZE} B: {COUNTS['produce']:,} "
        f"are sent, {COUNTS['batches']:,} read, of which each partition holds the same number. Taken by the "
        "command below.",
        f"```\npython bench/partitions.py {command}\n```",
        "\n".join(f"* {name}: {value}" for name, value in facts)
        + f"\n* load before the run: {load:.2f}; taken on {datetime.date.today().isoformat()}",
        f"Each row ran {repeat} times, each time in a process of its own with a server of its own, in turn "
        "with the other versions; the figures are medians. `of 1`: the rate as a share of the same version's "
        "with one partition at the same distance. `CPU s/M`: CPU seconds of the client's process for a "
        "million records.",
        *(["**Others used the machine during the run: the rates are rough.**"] if load > BUSY else []),
        *(table(case, [row for row in rows if row.case == case]) for case in CASES),
    ]
    return "\n\n".join(parts) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the records, one repetition")
    parser.add_argument("--repeat", type=int, metavar="N", help="repetitions (3)")
    parser.add_argument(
        "--against", nargs=3, action="append", default=[], metavar=("NAME", "TREE", "LIBRARY")
    )
    parser.add_argument("--partitions", type=int, nargs="+", default=PARTITIONS, metavar="N")
    parser.add_argument("--latency", type=int, nargs="+", default=LATENCIES, metavar="MS")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the tables there as well")
    parser.add_argument("--no-build", action="store_true", help="measure what was built before")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    repeat = options.repeat or (1 if options.quick else 3)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = Path(os.environ.setdefault("CARGO_TARGET_DIR", str(cache / "fluvio-cffi" / "target")))
    if not options.no_build:
        subprocess.run(["make", "build"], cwd=ROOT, check=True)
    library = target / "release" / "libfluvio_cffi.so"
    # For the topics that are filled here; read when the package is imported.
    os.environ["FLUVIO_CFFI_LIBRARY"] = str(library)
    versions = [Version(name, Path(tree), Path(other)) for name, tree, other in options.against]
    versions.append(Version("this", ROOT, library))
    load = machine.load()
    rows = []
    for case in CASES:
        for latency in options.latency:
            for partitions in options.partitions:
                count = COUNTS[case] // 5 if options.quick else COUNTS[case]
                measured = [Row(case, version, partitions, latency) for version in versions]
                rows += measured
                for _ in range(repeat):
                    for row in measured:
                        extra = ["--latency", str(latency)]
                        with Server(target / "release" / "fluvio-devserver", extra) as server:
                            filled = count if case == "batches" else 0
                            asyncio.run(fill(server.endpoint, "t", partitions, filled))
                            run(row, server, "t", count)
    text = document(rows, options.against, repeat, load)
    print(text)
    if options.write:
        options.write.write_text(text)
    return int(any(row.failures for row in rows))


if __name__ == "__main__":
    sys.exit(main())
