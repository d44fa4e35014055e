"""What was handed over, what became of it and what was read.

Every value names the incarnation of the topic that it was meant for, its source and its number, so that
whatever comes out can be judged by itself. A `Source` is one task that hands records to one producer, one
call after another; a `Reading` is what one consumer gave out. Each is written by one thread and judged when
that has ended.
"""

from __future__ import annotations

import threading
import time
from array import array
from itertools import count
from typing import Optional

PENDING, ACKED, NOT_SENT, UNCERTAIN = range(4)
# A request that was lost a moment before is tried again a moment later, with a pause between.
AFTERMATH = 6.0
# So long may the news that a topic is another one be on its way, if nothing that was read proves it: only the
# watch tells then. A silent one is noticed after two request time-outs, and opened again after a pause and a
# connect time-out: 7 s, and what a loaded machine adds.
NEWS = 9.0


class Disturbances:
    """When something was wrong with the cluster."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []
        self._open: dict[int, float] = {}
        self._numbers = count()
        self._lock = threading.Lock()

    def begin(self) -> int:
        number = next(self._numbers)
        with self._lock:
            self._open[number] = time.monotonic()
        return number

    def end(self, number: int) -> None:
        with self._lock:
            self._spans.append((self._open.pop(number), time.monotonic() + AFTERMATH))

    def meet(self, start: float, end: float) -> bool:
        """Whether something was wrong between the two moments."""
        with self._lock:
            return any(begun <= end for begun in self._open.values()) or any(
                begun <= end and start <= ended for begun, ended in self._spans
            )


class Incarnation:
    """One life of a topic, with everything that was handed to it and read from it."""

    _numbers = count(1)

    def __init__(self, topic: str, partitions: int) -> None:
        self.topic = topic
        self.partitions = partitions
        self.number = next(self._numbers)
        self.born = time.monotonic()
        # When its end was ordered.
        self.ended: Optional[float] = None
        # When the next one was there.
        self.replaced: Optional[float] = None
        self.sources: list[Source] = []
        self.readings: list[Reading] = []

    def __repr__(self) -> str:
        return f"{self.topic}#{self.number}"

    def is_news(self, moment: float) -> bool:
        """Whether its end may still be unknown to a client at that time."""
        return self.replaced is None or moment < self.replaced + NEWS

    def source(self, name: str) -> Source:
        source = Source(self, name)
        self.sources.append(source)
        return source

    def reading(self, name: str) -> Reading:
        reading = Reading(self, name)
        self.readings.append(reading)
        return reading

    def acknowledged_ends(self) -> dict[int, int]:
        """By partition, the offset behind the last record that was acknowledged."""
        ends: dict[int, int] = {}
        for source in self.sources:
            for partition, offset in zip(source.partitions, source.offsets):
                if offset >= 0:
                    ends[partition] = max(ends.get(partition, 0), offset + 1)
        return ends


class Source:
    """The records of one task, by their number."""

    _numbers = count(1)

    def __init__(self, incarnation: Incarnation, name: str) -> None:
        self.incarnation = incarnation
        self.name = name
        self.number = next(self._numbers)
        self.started = array("d")
        self.ended = array("d")
        self.outcomes = bytearray()
        # Of how many the caller did not wait for the outcome.
        self.left = 0
        self.partitions = array("i")
        self.offsets = array("q")
        self._prefix = b"%d %d " % (incarnation.number, self.number)

    def value(self, size: int) -> tuple[int, bytes]:
        """The number and the value of the next record."""
        number = len(self.outcomes)
        self.started.append(time.monotonic())
        self.ended.append(float("inf"))
        self.outcomes.append(PENDING)
        self.partitions.append(-1)
        self.offsets.append(-1)
        return number, (self._prefix + b"%d " % number).ljust(size, b"x")

    def acked(self, number: int, partition: int, offset: int) -> None:
        self.ended[number] = time.monotonic()
        self.outcomes[number] = ACKED
        self.partitions[number] = partition
        self.offsets[number] = offset

    def given_up(self, number: int) -> None:
        """Its call was cancelled or had no more time: its producer will tell of it, should it fail."""
        self.left += 1
        self.failed(number, UNCERTAIN)

    def failed(self, number: int, outcome: int) -> None:
        self.ended[number] = time.monotonic()
        self.outcomes[number] = outcome


class Reading:
    """What one consumer gave out, by partition. All of them begin at the beginning."""

    def __init__(self, incarnation: Incarnation, name: str) -> None:
        self.incarnation = incarnation
        self.name = name
        # Source and number of each record, packed; the index is the offset. Zero is none.
        self.records: dict[int, array[int]] = {}
        # How many were of a later incarnation, and came before the news: each is none, and has its place.
        self.early = 0
        # Kind and description of what is wrong with it by itself.
        self.wrong: list[tuple[str, str]] = []

    def add(self, partition: int, offset: int, value: bytes) -> None:
        incarnation, source, number, _ = value.split(b" ", 3)
        place = f"{self.name} got {partition}:{offset} of {self.incarnation}"
        # One of the incarnation before may have been quicker than the news of its end: a request names none.
        later = int(incarnation) > self.incarnation.number
        if later and (self.incarnation.ended is None or not self.incarnation.is_news(time.monotonic())):
            self.wrong.append(("of a later incarnation", f"{place}: a record of #{int(incarnation)}"))
            return
        records = self.records.setdefault(partition, array("Q"))
        if offset < len(records):
            self.wrong.append(("read twice", f"{place}, and {len(records)} was next"))
            return
        if offset > len(records):
            self.wrong.append(("skipped in reading", f"{place}, and {len(records)} was next"))
            records.extend([0] * (offset - len(records)))
        self.early += later
        records.append(0 if later else pack(int(source), int(number)))

    def reaches(self, ends: dict[int, int]) -> bool:
        return all(len(self.records.get(partition, ())) >= end for partition, end in ends.items())

    def __len__(self) -> int:
        return sum(map(len, self.records.values()))


def pack(source: int, number: int) -> int:
    return source << 32 | number


def unpack(record: int) -> tuple[int, int]:
    return record >> 32, record & 0xFFFFFFFF
