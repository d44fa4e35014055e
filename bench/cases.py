"""What is measured: sections of contenders that run side by side, how much each does, and the targets.

A row is judged against the target beside it and compared with the fastest row of each other client in its
section. Slow clients get fewer records, never another job.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

# Kinds of figures.
RATE = "rate"  # records per second, higher is better
LATENCY = "latency"  # microseconds at p50, lower is better
COST = "cost"  # microseconds per operation, lower is better
THREADS = "threads"  # a count, lower is better

OURS, CRATE, OFFICIAL = "ours", "crate", "official"


@dataclass(frozen=True)
class Contender:
    """One row: a client in one of its ways of being used."""

    name: str
    family: str
    # Which program runs it, and with which interpreter ("everyday", "pypy", "official"; None: a binary).
    worker: str
    python: Optional[str]
    # Records or operations in a full and in a quick run.
    counts: tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)
    target: Optional[float] = None
    # Which prepared topic it reads.
    source: Optional[str] = None


@dataclass(frozen=True)
class Section:
    """One table."""

    name: str
    title: str
    kind: str
    case: str
    contenders: list[Contender]
    size: int = 100
    note: str = ""
    # Topics to fill before: name to records in a full and in a quick run.
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)
    # Records between two waits for all acks.
    chunk: int = 0
    repeat: bool = True


LOOPS = (
    ("asyncio", "ours.py", "everyday", "asyncio"),
    ("uvloop", "ours.py", "everyday", "uvloop"),
    ("trio", "ours.py", "everyday", "trio"),
    ("PyPy asyncio", "ours.py", "pypy", "asyncio"),
    ("sync twin", "ours_sync.py", "everyday", "sync"),
)


def ours(
    how: str, counts: tuple[int, int], targets: dict[str, float], without: str = "", **options: Any
) -> list[Contender]:
    """Our rows, one per loop; `targets` by loop, "*" for the others."""
    source = options.pop("source", None)
    return [
        Contender(
            f"ours, {loop}{how}",
            OURS,
            worker,
            python,
            counts,
            {**options, "backend": backend},
            targets.get(loop, targets.get("*")),
            source,
        )
        for loop, worker, python, backend in LOOPS
        if loop != without
    ]


def crate(name: str, counts: tuple[int, int], source: Optional[str] = None, **options: Any) -> Contender:
    return Contender(f"crate, from Rust{name}", CRATE, "peer", None, counts, options, None, source)


def official(
    name: str, backend: str, counts: tuple[int, int], source: Optional[str] = None, **options: Any
) -> Contender:
    options["backend"] = backend
    title = f"official, {backend}{name}"
    return Contender(title, OFFICIAL, "official.py", "official", counts, options, None, source)


def produce(size: int, scale: int, target: float) -> Section:
    """`scale`: how many times fewer records than of 100 B."""

    def counts(full: int, quick: int) -> tuple[int, int]:
        return full // scale, quick // scale

    return Section(
        f"produce-{size}",
        f"Produce {size:,} B, acknowledged",
        RATE,
        "produce",
        [
            *ours(", send_many", counts(3_000_000, 500_000), {"*": target}),
            *ours(", submit", counts(200_000, 50_000), {}, way="submit"),
            crate(", send", counts(1_000_000, 200_000)),
            crate(", send, batch_size 128 KiB", counts(1_000_000, 200_000), batch_size=128 * 1024),
            official(", send_all", "sync", counts(200_000, 50_000), way="send_all"),
            official(", send", "sync", counts(100_000, 20_000), way="send"),
            official(", send_all", "async", counts(200_000, 50_000), way="send_all"),
            official(", send", "async", counts(20_000, 10_000), way="send"),
        ],
        size=size,
        chunk=50_000 // scale,
        note=(
            f"Records go out in calls (or rounds) of {50_000 // scale:,}; the next begins when every record "
            "of the last one has been acknowledged. `submit` hands over one record per call and awaits the "
            "deliveries afterwards; the crate's and the official client's `send` are the same."
        ),
    )


def consume(size: int, scale: int, by_batch: bool, targets: dict[str, float]) -> Section:
    def counts(full: int, quick: int) -> tuple[int, int]:
        return full // scale, quick // scale

    big, small = counts(2_000_000, 300_000), counts(100_000, 50_000)
    if by_batch:
        how, contenders = (
            "in batches, every value as bytes",
            [
                *ours(", batches", big, targets, source="big"),
                crate(", batch stream", big, "big"),
            ],
        )
    else:
        how, contenders = (
            "record by record",
            [
                *ours("", big, targets, source="big"),
                crate(", record stream", big, "big"),
                official(", consumer_with_config", "sync", small, "small"),
                official(", async_stream", "async", small, "small"),
            ],
        )
    return Section(
        f"{'batches' if by_batch else 'records'}-{size}",
        f"Consume {size:,} B {how}",
        RATE,
        "batches" if by_batch else "records",
        contenders,
        size=size,
        sources={"big": big} if by_batch else {"big": big, "small": small},
        note=(
            "The topic was written by the crate with its defaults, so that its batches favour nobody. The "
            "clock starts before the consumer is opened. "
            "The rate counts the records that came back, and the column before it how many did."
        ),
    )


SECTIONS = [
    produce(100, 1, 4e6),
    produce(1000, 10, 0.45e6),
    consume(100, 1, False, {"PyPy asyncio": 2e6, "*": 1.2e6}),
    consume(1000, 10, False, {}),
    consume(100, 1, True, {"*": 4e6}),
    consume(1000, 10, True, {}),
    Section(
        "tasks",
        "100 tasks, each awaiting its own ack",
        RATE,
        "tasks",
        [
            *ours(
                "",
                (300_000, 50_000),
                {"uvloop": 250e3, "PyPy asyncio": 250e3, "*": 180e3},
                without="sync twin",
                tasks=100,
            ),
            crate("", (100_000, 20_000), tasks=100),
            official("", "async", (20_000, 5_000), tasks=100),
        ],
        note="Records of 100 B; each task sends one, waits for its ack, and sends the next.",
    ),
    Section(
        "ack",
        "One record at a time, send to ack",
        LATENCY,
        "ack",
        [
            *ours("", (10_000, 2_000), {"sync twin": 55, "*": 65}),
            crate("", (10_000, 2_000)),
            official("", "sync", (5_000, 1_000)),
            official("", "async", (5_000, 1_000), tasks=1),
        ],
        note="Records of 100 B, one after another on an idle connection.",
    ),
    Section(
        "live",
        "Live: produce to consume",
        LATENCY,
        "live",
        [
            *ours("", (5_000, 1_000), {"*": 800}),
            crate("", (5_000, 1_000)),
            official("", "sync", (2_000, 500)),
            official("", "async", (2_000, 500)),
        ],
        note=(
            "From before the send until the record comes out of a consumer in the same process, one record "
            "after another. The real server writes an answer in pieces without TCP_NODELAY, which costs "
            "clients that leave Linux its delayed acknowledgements 40 ms for every record; the development "
            "server writes an answer at once, so that this does not show here."
        ),
    ),
    Section(
        "border",
        "The border alone, 100 in flight",
        COST,
        "border",
        ours("", (500_000, 50_000), {"trio": 5.0, "*": 3.5}, without="sync twin", tasks=100),
        note=(
            "Microseconds for one operation that crosses the C border, completes in the library's runtime "
            "and wakes its task, without I/O: 100 tasks flush an idle producer again and again."
        ),
    ),
    Section(
        "threads",
        "Threads of the library",
        THREADS,
        "threads",
        [
            *ours("", (1, 1), {"*": 2}, without="sync twin")[:1],
            crate("", (1, 1)),
            official("", "sync", (1, 1)),
        ],
        note="Threads added to the process by a client with a producer and a consumer in use.",
        repeat=False,
    ),
]
