"""Measures fluvio_cffi, the fluvio crate from Rust and the official Python client side by side.

    python bench/run.py [--quick] [--only NAME ...] [--write docs/benchmarks.md]

It builds what it measures, starts the development server (release build, answers cut in the middle of a
batch as the real server does), and runs every contender in a process of its own, several times, interleaved
(A B C A B C), so that what disturbs the machine disturbs all of them. Tables go to stdout, progress to
stderr.
Run it with the everyday environment (`make bench`); the others are made when they are missing.

Nothing is judged by time: the status is 0 unless something failed, whatever the figures are.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
sys.path.insert(0, str(ROOT))

import machine  # noqa: E402
from cases import RATE, SECTIONS, Contender, Section  # noqa: E402
from server import Server  # noqa: E402
from tables import HEADINGS, Row, figure, number, section_table, summary  # noqa: E402

from scripts.environments import (  # noqa: E402
    EVERYDAY,
    everyday_interpreter,
    find_pypy,
    make_environment,
    make_everyday,
    python_of,
)

WORKER_SECONDS = 180
PACKAGES = ("fluvio-cffi-capi", "fluvio-devserver", "fluvio-cffi-bench-peer")


class Failed(Exception):
    """A run gave no result."""


class Bench:
    """Runs contenders and remembers where things are."""

    def __init__(self, target: Path, pythons: dict[str, Path], quick: bool) -> None:
        self.release = target / "release"
        self.pythons = pythons
        self.quick = quick
        self._topics = 0

    def count(self, counts: tuple[int, int]) -> int:
        return counts[1] if self.quick else counts[0]

    def run(self, program: list[str], task: dict[str, Any]) -> dict[str, Any]:
        """Runs one worker to its end."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FLUVIO_CFFI_LIBRARY": str(self.release / "libfluvio_cffi.so"),
        }
        try:
            finished = subprocess.run(
                [*program, json.dumps(task)],
                capture_output=True,
                text=True,
                timeout=WORKER_SECONDS,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"not finished after {WORKER_SECONDS} s") from None
        if finished.returncode != 0 or not finished.stdout.startswith("{"):
            lines = [line for line in finished.stderr.splitlines() if line.strip()]
            reason = lines[0] if program[0].endswith("peer") else (lines or [""])[-1]
            raise Failed(f"status {finished.returncode}: {reason[:200]}")
        result: dict[str, Any] = json.loads(finished.stdout.splitlines()[0])
        return result

    def peer(self) -> list[str]:
        return [str(self.release / "fluvio-crate-peer")]

    def program(self, contender: Contender) -> list[str]:
        if contender.python is None:
            return self.peer()
        return [str(self.pythons[contender.python]), str(BENCH / contender.worker)]

    def new_topic(self, server: Server, prefix: str) -> str:
        self._topics += 1
        topic = f"{prefix}-{self._topics}"
        self.run(self.peer(), {"case": "create", "endpoint": server.endpoint, "topic": topic})
        return topic

    def fill(self, server: Server, section: Section) -> dict[str, str]:
        """The prepared topics of a section, by the name of the source."""
        topics = {}
        for source, counts in section.sources.items():
            topics[source] = topic = self.new_topic(server, source)
            task = {"case": "produce", "size": section.size, "chunk": 50_000, "count": self.count(counts)}
            self.run(self.peer(), {**task, "endpoint": server.endpoint, "topic": topic})
        return topics

    def measure(self, server: Server, section: Section, row: Row, topics: dict[str, str]) -> dict[str, Any]:
        """One run of one contender."""
        contender = row.contender
        topic = topics[contender.source] if contender.source else self.new_topic(server, section.name)
        try:
            return self.run(
                self.program(contender),
                {
                    **contender.options,
                    "case": section.case,
                    "endpoint": server.endpoint,
                    "server_pid": server.pid,
                    "topic": topic,
                    "size": section.size,
                    "count": row.expected,
                    "warm": row.expected // 5,
                    "chunk": section.chunk,
                },
            )
        finally:
            if not contender.source:
                task = {"case": "delete", "endpoint": server.endpoint, "topic": topic}
                self.run(self.peer(), task)

    def section(self, section: Section, repeat: int) -> list[Row]:
        """All runs of a section, interleaved."""
        rows = [
            Row(contender, section.kind, self.count(contender.counts))
            for contender in section.contenders
            if contender.python is None or contender.python in self.pythons
        ]
        with Server(self.release / "fluvio-devserver") as server:
            topics = self.fill(server, section)
            for turn in range(repeat if section.repeat else 1):
                for row in rows:
                    label = f"{section.name} {turn + 1}/{repeat} {row.contender.name}"
                    try:
                        result = self.measure(server, section, row, topics)
                    except Failed as failure:
                        row.failures.append(str(failure))
                        say(f"{label}: FAILED, {failure}")
                        continue
                    row.results.append(result)
                    value = number(figure(section.kind, result), section.kind)
                    lost = row.expected - result["count"] if section.kind == RATE else 0
                    say(f"{label}: {value} {HEADINGS[section.kind]}" + (f", {lost} lost" if lost > 0 else ""))
        return rows


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def build(compile_first: bool) -> Path:
    """Compiles in the release profile; returns cargo's target folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = Path(os.environ.setdefault("CARGO_TARGET_DIR", str(cache / "fluvio-cffi" / "target")))
    if compile_first:
        packages = [argument for package in PACKAGES for argument in ("--package", package)]
        subprocess.run(["cargo", "build", "--release", "--locked", *packages], cwd=ROOT, check=True)
    return target


def environments() -> dict[str, Path]:
    """The interpreters that run the contenders; without PyPy its rows are left out."""
    requirements = ROOT / "requirements"
    # Stdout is for the tables.
    with contextlib.redirect_stdout(sys.stderr):
        make_everyday()
        official = make_environment(
            ROOT / ".venv-official", everyday_interpreter(), requirements / "official.txt"
        )
        pythons = {"everyday": python_of(EVERYDAY), "official": official}
        pypy = find_pypy()
        if pypy is None:
            say("no PyPy found: its rows are left out")
        else:
            pythons["pypy"] = make_environment(ROOT / ".venv-pypy", pypy, requirements / "test.txt")
    return pythons


def document(
    measured: list[tuple[Section, list[Row]]], pythons: dict[str, Path], repeat: int, load: float
) -> str:
    """The whole of docs/benchmarks.md."""
    facts = machine.describe(pythons)
    arguments = shlex.join(sys.argv[1:])
    parts = [
        "# Benchmarks",
        "fluvio_cffi from Python, the Rust crate `fluvio` 0.50.1 used from Rust, and the official Python "
        "client `fluvio` 0.21.0, against the development server on the same machine: loopback, one "
        "partition, no compression, checksums of received batches verified by ours. The server answers one "
        "request of a connection after another, and cuts answers in the middle of a batch (`--cut-batches`), "
        "as the real server does. Figures by the number of partitions and the distance to the server "
        "are in [benchmarks-partitions.md](benchmarks-partitions.md). This file is written by the command "
        "below; to take the figures anew:",
        f'```\nmake bench ARGS="{arguments}"\n```',
        "\n".join(f"* {name}: {value}" for name, value in facts)
        + f"\n* load before the run: {load:.2f}; taken on {datetime.date.today().isoformat()}",
        f"Each row ran {repeat} times, each time in a process of its own, in turn with the other rows of its "
        "table; a fifth of the work is done before the clock starts. **Read the figures as ratios, and "
        "compare only within one table.** `x crate` and `x official`: how many times better the row's "
        "median is than the fastest row of that client in the same table; below 1 it is slower. `CPU s/M`: "
        "CPU seconds of the client's process for a million records (or operations); `server CPU s/M`: of "
        "the server for the same. Times of less than a second of CPU are coarse: the kernel counts in 10 ms.",
        "## Targets",
        summary(measured),
        "## Figures",
        *(section_table(section, rows) for section, rows in measured),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def arguments() -> argparse.Namespace:
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the records, two repetitions")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help=f"a section, or the start of its name; may be repeated: {', '.join(names)}",
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="repetitions (5)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the tables there as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single result there")
    parser.add_argument("--contender", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--no-build", action="store_true", help="measure what was built before")
    options = parser.parse_args()
    for name in options.only or []:
        if not any(section.startswith(name) for section in names):
            parser.error(f"no section is called {name!r}: there are {', '.join(names)}")
    return options


def chosen(only: Optional[list[str]], contender: Optional[str]) -> list[Section]:
    names = {section.name for section in SECTIONS}

    def wanted(name: str) -> bool:
        # The name of a section means that one; anything else is the start of several.
        return not only or any(name == each if each in names else name.startswith(each) for each in only)

    sections = [section for section in SECTIONS if wanted(section.name)]
    if contender is not None:
        for section in sections:
            section.contenders[:] = [row for row in section.contenders if contender in row.name]
    return [section for section in sections if section.contenders]


def main() -> int:
    options = arguments()
    repeat = options.repeat or (2 if options.quick else 5)
    target = build(not options.no_build)
    pythons = environments()
    load = machine.load()
    bench = Bench(target, pythons, options.quick)
    measured = [
        (section, bench.section(section, repeat)) for section in chosen(options.only, options.contender)
    ]
    text = document(measured, pythons, repeat, load)
    print(text)
    if options.write:
        options.write.write_text(text)
    if options.json:
        raw = {section.name: {row.contender.name: row.results for row in rows} for section, rows in measured}
        options.json.write_text(json.dumps(raw, indent=1))
    return int(any(row.failures for _, rows in measured for row in rows))


if __name__ == "__main__":
    sys.exit(main())
