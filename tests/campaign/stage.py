"""What the actors of a round share: its topics, when it ends, and how errors are taken."""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Callable, Optional

from fluvio_cffi import (
    DeliveryError,
    FluvioConnectionError,
    FluvioError,
    FluvioTimeoutError,
    Offset,
    PartitionNotFoundError,
    TopicDeletedError,
    TopicNotFoundError,
)
from tests.campaign.model import NEWS, NOT_SENT, UNCERTAIN, Disturbances, Incarnation, Reading, Source
from tests.campaign.report import Report

# Nothing may take longer, whatever was disturbed.
PATIENCE = 60.0
CLIENT: dict[str, Any] = {"connect_timeout": 2.0, "request_timeout": 2.0, "close_timeout": 30.0}
WAYS = ("send", "submit", "send_many")


class Topic:
    """A name, and the incarnation that it stands for now; none while it is made anew."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.current: Optional[Incarnation] = None
        self.incarnations: list[Incarnation] = []

    def begin(self, partitions: int) -> None:
        incarnation = Incarnation(self.name, partitions)
        if self.incarnations:
            self.incarnations[-1].replaced = incarnation.born
        self.incarnations.append(incarnation)
        self.current = incarnation

    def end(self) -> None:
        if self.current is not None:
            self.current.ended = time.monotonic()
        self.current = None


class Stage:
    """One round."""

    def __init__(self, endpoint: str, topics: Sequence[Topic], report: Report) -> None:
        self.endpoint = endpoint
        self.topics = topics
        self.report = report
        self.disturbances = Disturbances()
        # Producers come to an end.
        self.stopping = threading.Event()
        # Readers come to theirs.
        self.finished = threading.Event()
        self.finished_at = 0.0
        self.ends: dict[Incarnation, dict[int, int]] = {}
        self._producers = 0
        self._producer_ended = threading.Condition()

    @contextmanager
    def producing(self) -> Iterator[None]:
        """For as long as a producer's actor plays; it looks at `stopping` within."""
        with self._producer_ended:
            self._producers += 1
        yield
        with self._producer_ended:
            self._producers -= 1
            self._producer_ended.notify_all()

    def wait_for_producers(self) -> bool:
        """Whether all have come to their end, in good time."""
        with self._producer_ended:
            return self._producer_ended.wait_for(lambda: not self._producers, 3 * PATIENCE)

    def is_read(self, reading: Reading) -> bool:
        """Whether a reader has come to its end: it has read all there is, or has had its time."""
        if not self.finished.is_set():
            return False
        ends = self.ends.get(reading.incarnation)
        if ends is not None and reading.reaches(ends):
            return True
        if time.monotonic() < self.finished_at + PATIENCE:
            return False
        kind = "stuck" if ends is not None else "not told of the end"
        reached = {partition: len(records) for partition, records in reading.records.items()}
        self.report.find(kind, f"{reading.name} of {reading.incarnation}: at {reached}, to read: {ends}")
        return True

    def finish(self, ends: dict[Incarnation, dict[int, int]]) -> None:
        """Readers read to these ends of what is still there, and are told of the end of what is not."""
        self.ends = ends
        self.finished_at = time.monotonic()
        self.finished.set()

    def thread(self, name: str, play: Callable[[], None]) -> threading.Thread:
        """A thread whose errors are found."""

        def run() -> None:
            try:
                play()
            except BaseException:
                self.report.find("unexpected error", f"{name}: {traceback.format_exc()}")

        return threading.Thread(target=run, name=name, daemon=True)

    def take_error(self, incarnation: Incarnation, place: str, error: FluvioError) -> None:
        """An error of an open handle: whether it may be."""
        if isinstance(error, TopicDeletedError):
            if incarnation.ended is not None:
                self.report.count("ends told")
            elif time.monotonic() - incarnation.born < NEWS:
                self.report.count("ends told late")
            else:
                self.report.find("said to be deleted", f"{place}: {incarnation}: {error}")
        elif isinstance(error, (FluvioConnectionError, FluvioTimeoutError)):
            self.report.count(f"{type(error).__name__} of {place.split()[0]}")
        elif isinstance(error, PartitionNotFoundError) and time.monotonic() - incarnation.born < NEWS:
            # It was opened before the news of the one before's end.
            self.report.count("partitions of the one before")
        else:
            self.report.find("unexpected error", f"{place}: {incarnation}: {error!r}")

    def take_failed_closing(self, source: Source, error: FluvioError) -> None:
        """An error of a producer's closing: it tells of records whose callers went without their outcomes."""
        place = f"{source.name}, closing"
        if not isinstance(error, DeliveryError):
            self.take_error(source.incarnation, place, error)
            return
        self.report.count("failures told in closing", error.failed)
        if error.failed > source.left:
            self.report.find("told twice", f"{place}: {source.left} were given up: {error!r}")
        for cause in error.errors:
            self.take_error(source.incarnation, place, cause)

    def take_failed_opening(self, topic: Topic, before: Optional[Incarnation], error: FluvioError) -> None:
        """An error of an opening: whether it may be."""
        unknown = (TopicNotFoundError, TopicDeletedError, PartitionNotFoundError)
        if isinstance(error, unknown):
            same = before is not None and topic.current is before
            if same and before is not None and time.monotonic() - before.born > NEWS:
                self.report.find("said not to be there", f"{before}: {error!r}")
        elif not (isinstance(error, (FluvioConnectionError, FluvioTimeoutError)) or error.retriable):
            self.report.find("unexpected error", f"opening {topic.name}: {error!r}")
        self.report.count("openings failed")


def fail(source: Source, numbers: Sequence[int], error: FluvioError) -> None:
    """Records whose delivery has failed."""
    outcome = NOT_SENT if getattr(error, "outcome", None) == "not_sent" else UNCERTAIN
    for number in numbers:
        source.failed(number, outcome)


def producer_options(rng: random.Random) -> dict[str, Any]:
    """Usual ones, and some that are tight."""
    options: dict[str, Any] = {}
    if rng.random() < 0.4:
        options["buffer"] = rng.choice((64 * 1024, 256 * 1024))
        options["batch_size"] = rng.choice((1024, 16 * 1024))
    if rng.random() < 0.3:
        options["linger"] = rng.choice((0.001, 0.02))
    if rng.random() < 0.2:
        options["isolation"] = "read_committed"
    if rng.random() < 0.2:
        options["delivery_timeout"] = rng.choice((1.0, 5.0))
    return options


def consumer_options(rng: random.Random) -> dict[str, Any]:
    return {
        "start": Offset.beginning(),
        "prefetch": rng.choice((64 * 1024, 256 * 1024, 1024 * 1024, 8 * 1024 * 1024)),
    }


def record_size(rng: random.Random) -> int:
    return rng.choice((10, 30, 100, 100, 1000, 10_000))


def target(rng: random.Random, incarnation: Incarnation) -> dict[str, Any]:
    """A partition or a key, or neither."""
    drawn = rng.random()
    if drawn < 0.3:
        return {"partition": rng.randrange(incarnation.partitions)}
    return {"key": b"%d" % rng.randrange(20)} if drawn < 0.6 else {}
