"""The main job: a week of real earthquakes through a Fluvio topic, on three event loops at once.

    python examples/python/earthquakes.py [--endpoint HOST:PORT] [--records N]

Without `--endpoint` it starts the development server; with it, the same code talks to a real cluster. It
creates a topic with three partitions, streams the events of examples/data/earthquakes.jsonl (U.S. Geological
Survey, public domain) as records keyed by their region from asyncio, reads them back under trio and under
asyncio while they are being written, and prints what arrived. It exits with status 0 only if each reader got
every acknowledged record exactly once, in order, at the partition and offset that the server acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import anyio
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

import fluvio_cffi
import fluvio_cffi.sync
from fluvio_cffi import Offset
from fluvio_cffi.devserver import DevServer

DATA = Path(__file__).resolve().parent.parent / "data" / "earthquakes.jsonl"
PARTITIONS = 3
PASSES = 60  # how often the week is streamed unless --records says otherwise
IN_FLIGHT = 1000  # records sent before their acknowledgements are awaited
PATIENCE = 30.0  # seconds without a record after which a reader gives up
SHOW_EVERY = 500  # records between two updates of a progress bar
ABBREVIATIONS = {"CA": "California", "MX": "Mexico"}


@dataclass(frozen=True)
class Event:
    """One line of the data: what is sent, and what the tables show of it."""

    identity: str
    region: str
    place: str
    magnitude: float
    moment: datetime
    value: bytes

    @property
    def site(self) -> str:
        """The place without its region, which has a column of its own."""
        return self.place.rsplit(", ", 1)[0]

    @property
    def key(self) -> bytes:
        """The region: all events of one region land in one partition, in order."""
        return self.region.encode()

    @classmethod
    def parse(cls, line: bytes) -> Event:
        """Reads one line; the region is what follows the last comma of the place."""
        fields = json.loads(line)
        region: str = fields["place"].rsplit(", ", 1)[-1]
        return cls(
            identity=fields["id"],
            region=ABBREVIATIONS.get(region, region),
            place=fields["place"],
            magnitude=fields["magnitude"],
            moment=datetime.fromtimestamp(fields["time"] / 1000, timezone.utc),
            value=line,
        )


@dataclass
class Reader:
    """What one reader got: key and value per partition, in the order of arrival."""

    name: str
    arrived: list[list[tuple[int, bytes | None, bytes]]] = field(
        default_factory=lambda: [[] for _ in range(PARTITIONS)]
    )
    seconds: float = 0.0
    failure: BaseException | None = None

    @property
    def count(self) -> int:
        """Records so far."""
        return sum(map(len, self.arrived))


@dataclass
class Job:
    """One run: its topic, its records, the acknowledgements and the readers."""

    endpoint: str
    topic: str
    events: list[Event]
    total: int
    progress: Progress
    # Per partition and offset, the event that the server acknowledged there.
    acknowledged: list[dict[int, Event]] = field(default_factory=lambda: [{} for _ in range(PARTITIONS)])
    seconds: float = 0.0

    def bar(self, title: str) -> TaskID:
        """A progress bar over all records."""
        return self.progress.add_task(title, total=self.total)

    async def write(self) -> None:
        """Creates the topic's records: keyed, each with its own acknowledgement awaited."""
        bar = self.bar("written from asyncio")
        started = time.perf_counter()
        remaining = itertools.islice(itertools.cycle(self.events), self.total)
        async with (
            fluvio_cffi.connect(self.endpoint) as client,
            client.producer(self.topic) as producer,
        ):
            sizes = f"{len(self.events):,} events, {self.total:,} records"
            self.progress.console.print(f"{sizes}, topic {self.topic} with {PARTITIONS} partitions")
            while chunk := list(itertools.islice(remaining, IN_FLIGHT)):
                # submit() waits only for room in the producer's buffer; the acknowledgement comes later.
                deliveries = [await producer.submit(event.value, key=event.key) for event in chunk]
                for event, delivery in zip(chunk, deliveries):
                    ack = await delivery
                    self.acknowledged[ack.partition][ack.offset] = event
                self.progress.update(bar, advance=len(chunk))
        self.seconds = time.perf_counter() - started

    async def read(self, reader: Reader, bar: TaskID) -> None:
        """Reads until everything has arrived. One definition: asyncio and trio both run it."""
        started = time.perf_counter()
        with anyio.move_on_after(PATIENCE) as patience:
            async with (
                fluvio_cffi.connect(self.endpoint) as client,
                client.consumer(self.topic, start=Offset.beginning()) as records,
            ):
                count = 0
                async for record in records:
                    reader.arrived[record.partition].append((record.offset, record.key, record.value))
                    count += 1
                    if count % SHOW_EVERY == 0 or count == self.total:
                        patience.deadline = anyio.current_time() + PATIENCE
                        self.progress.update(bar, completed=count)
                    if count == self.total:
                        break
        reader.seconds = time.perf_counter() - started

    def problems(self, reader: Reader) -> list[str]:
        """What is missing, out of order, or not what was acknowledged. Empty is what we want."""
        found = []
        if reader.failure is not None:
            found.append(f"{reader.name}: {type(reader.failure).__name__}: {reader.failure}")
        for partition, (expected, arrived) in enumerate(zip(self.acknowledged, reader.arrived)):
            wanted = [(offset, expected[offset].key, expected[offset].value) for offset in sorted(expected)]
            if arrived != wanted:
                numbers = f"{len(arrived):,} records, {len(wanted):,} were acknowledged"
                found.append(f"{reader.name}: partition {partition} differs from what was written: {numbers}")
        return found


async def cancelled_by_interrupt(work: Coroutine[Any, Any, None]) -> None:
    """Lets Ctrl-C cancel `work`: asyncio before 3.11 lets KeyboardInterrupt strike inside its own code."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    await task


def run_in_thread(job: Job, reader: Reader, backend: str) -> threading.Thread:
    """Starts a reader with an event loop of its own."""
    bar = job.bar(f"read under {backend}")

    def body() -> None:
        try:
            if backend == "trio":
                trio.run(job.read, reader, bar)
            else:
                asyncio.run(job.read(reader, bar))
        except BaseException as error:  # a thread must not die in silence
            reader.failure = error

    # A daemon: an interrupt of the main thread ends the program without waiting for the readers.
    thread = threading.Thread(target=body, name=reader.name, daemon=True)
    thread.start()
    return thread


def print_partitions(console: Console, job: Job, readers: list[Reader]) -> None:
    """What arrived per partition."""
    table = Table(title=f"Topic {job.topic}: what arrived", title_justify="left")
    table.add_column("partition")
    table.add_column("regions", justify="right")
    table.add_column("acknowledged", justify="right")
    for reader in readers:
        table.add_column(f"{reader.name}", justify="right")
    for partition, expected in enumerate(job.acknowledged):
        counts = [f"{len(reader.arrived[partition]):,}" for reader in readers]
        regions = len({event.region for event in expected.values()})
        table.add_row(str(partition), str(regions), f"{len(expected):,}", *counts)
    totals = [f"{reader.count:,}" for reader in readers]
    table.add_section()
    table.add_row("all", "", f"{sum(map(len, job.acknowledged)):,}", *totals)
    console.print(table)


def print_strongest(console: Console, reader: Reader, rows: int) -> None:
    """The strongest event of each region, out of what the reader got."""
    events = {
        line: Event.parse(line) for partition in reader.arrived for line in {v for _, _, v in partition}
    }
    counts = Counter(event.region for event in events.values())
    strongest: dict[str, Event] = {}
    for event in sorted(events.values(), key=lambda event: (-event.magnitude, event.identity)):
        strongest.setdefault(event.region, event)
    title = f"Strongest event per region, {rows} of {len(strongest)} regions (USGS, 31 Jan - 7 Feb 2018)"
    table = Table(title=title, title_justify="left")
    # In a narrow terminal only the place is broken into lines.
    table.add_column("region", no_wrap=True)
    table.add_column("M", justify="right", no_wrap=True)
    table.add_column("place")
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("events", justify="right", no_wrap=True)
    for region, event in itertools.islice(strongest.items(), rows):
        cells = (
            region,
            f"{event.magnitude:.1f}",
            event.site,
            f"{event.moment:%d %b %H:%M}",
            str(counts[region]),
        )
        table.add_row(*cells)
    console.print(table)


@contextlib.contextmanager
def server(console: Console, endpoint: str | None) -> Iterator[str]:
    """The endpoint to talk to: the given one, or that of a development server of our own."""
    if endpoint is not None:
        yield endpoint
        return
    with DevServer() as own:
        console.print(f"development server on {own.endpoint}")
        yield own.endpoint


def run(console: Console, endpoint: str, events: list[Event], total: int) -> int:
    """Streams, reads, prints and compares; returns the status to exit with."""
    topic = f"earthquakes-{uuid.uuid4().hex[:8]}"
    with fluvio_cffi.sync.connect(endpoint) as client:
        client.admin.topics.create(topic, partitions=PARTITIONS)
        columns = (
            TextColumn("{task.description:<21}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        readers = [Reader("trio"), Reader("asyncio")]
        try:
            with Progress(*columns, console=console) as progress:
                job = Job(endpoint, topic, events, total, progress)
                threads = [run_in_thread(job, reader, reader.name) for reader in readers]
                asyncio.run(cancelled_by_interrupt(job.write()))
                for thread in threads:
                    thread.join()
        finally:
            client.admin.topics.delete(topic)
    print_partitions(console, job, readers)
    print_strongest(console, readers[0], rows=12)
    problems = [problem for reader in readers for problem in job.problems(reader)]
    if sum(map(len, job.acknowledged)) != total:
        problems.append(
            f"{sum(map(len, job.acknowledged)):,} of {total:,} records have an offset of their own"
        )
    for problem in problems:
        console.print(f"[red]{problem}", soft_wrap=True)
    if problems:
        return 1
    speeds = [f"{reader.name} read them in {reader.seconds:.2f} s" for reader in readers]
    console.print(
        f"{total:,} records acknowledged in {job.seconds:.2f} s; {', '.join(speeds)}", soft_wrap=True
    )
    verdict = "Nothing is missing: every acknowledged record arrived once, in order, at both readers."
    console.print(f"[green]{verdict}", soft_wrap=True)
    return 0


def positive(text: str) -> int:
    """An argument that counts something."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def main() -> int:
    """Parses the command line and runs the job."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--endpoint", metavar="HOST:PORT", help="a running cluster; default: a development server"
    )
    parser.add_argument("--records", type=positive, metavar="N", help="records to stream; the events repeat")
    arguments = parser.parse_args()
    console = Console()
    events = [Event.parse(line) for line in DATA.read_bytes().splitlines()]
    total = arguments.records or len(events) * PASSES
    try:
        with server(console, arguments.endpoint) as endpoint:
            return run(console, endpoint, events, total)
    except fluvio_cffi.FluvioError as error:
        console.print(f"[red]{type(error).__name__}: {error}")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


if __name__ == "__main__":
    sys.exit(main())
