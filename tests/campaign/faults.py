"""The cluster, and what is done to it: faults one after another, some at the same time, as the seed draws."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Optional

from fluvio_cffi import FluvioError, TopicAlreadyExistsError, TopicNotFoundError, sync
from fluvio_cffi.devserver import DevServer
from tests.campaign.stage import CLIENT, Stage, Topic

SPUS = 3
FIRST_SPU = 5001
UNITS = range(FIRST_SPU, FIRST_SPU + SPUS)
# What may be delayed. Not what changes topics: a request that was given up would be handled later.
DELAYED: tuple[Any, ...] = ("list", "watch", "produce", "stream-fetch", "fetch-offsets", "update-offsets")
PARTITIONS = (1, 2, 3, 8)
ADMINISTRATION = 30.0


class Cluster:
    """A server that keeps its data, through kills. Its addresses stay."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._port = free_ports(1 + SPUS)
        self.endpoint = f"127.0.0.1:{self._port}"
        self.server = self._started()

    def _started(self) -> DevServer:
        server = DevServer(
            listen=self.endpoint,
            spus=SPUS,
            data_dir=self._folder,
            fsync="never",
            cut_batches=True,
            arguments=["--spu-port", str(self._port + 1)],
        )
        server.start()
        return server

    def kill(self) -> None:
        self.server.kill()

    def restart(self) -> None:
        self.server = self._started()

    def create(self, topic: Topic, partitions: int, replication: int) -> None:
        def create(client: sync.Client) -> None:
            try:
                client.admin.topics.create(topic.name, partitions=partitions, replication=replication)
            except TopicAlreadyExistsError:
                # By an attempt whose answer was lost.
                pass

        self._administer(create)
        topic.begin(partitions)

    def delete(self, topic: Topic) -> None:
        def delete(client: sync.Client) -> None:
            try:
                client.admin.topics.delete(topic.name)
            except TopicNotFoundError:
                pass

        topic.end()
        self._administer(delete)

    def _administer(self, order: Callable[[sync.Client], None]) -> None:
        deadline = time.monotonic() + ADMINISTRATION
        while True:
            try:
                with sync.connect(self.endpoint, **CLIENT) as client:
                    order(client)
                return
            except FluvioError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def free_ports(count: int) -> int:
    """The first of so many free ports in a row, below those that the system gives to whoever asks for any."""
    while True:
        first = random.randrange(10_000, 30_000)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


class Disturber:
    """Draws faults and lets them happen. Each of them is a context: it ends when that is left."""

    def __init__(self, cluster: Cluster, stage: Stage, rng: random.Random) -> None:
        self._cluster = cluster
        self._stage = stage
        self._rng = rng
        # SPUs that cannot become leaders now.
        self._away: set[int] = set()
        # What can go on beside another fault, and what cannot.
        self._lasting: dict[str, Callable[[], Any]] = {
            "SPU away": self._spu_away,
            "SPU stalls": self._stall,
            "SPU black hole": self._black_hole,
            "delay": self._delay,
        }
        self._sudden: dict[str, Callable[[], None]] = {
            "connections closed": lambda: self._cluster.server.close_connections(),
            "leader moves": self._move_leader,
            "topic made anew": self._make_anew,
            "unanswered produce": self._never_answer,
            "closed at a byte": self._close_at_byte,
            "produce refused": self._refuse,
        }
        # Alone: a request that changes a topic must not be lost in them and handled later.
        self._alone: dict[str, Callable[[], Any]] = {
            "kill -9": self._kill,
            "SC black hole": self._sc_black_hole,
        }

    def run(self, until: float) -> None:
        """Disturb until that time; then everything is whole again."""
        rng = self._rng
        while time.monotonic() < until:
            with ExitStack() as stack:
                drawn = rng.random()
                if drawn < 0.2:
                    self._enter(stack, self._alone, until)
                elif drawn < 0.7:
                    self._enter(stack, self._lasting, until)
                    if rng.random() < 0.5:
                        self._happen(stack, rng.choice(list(self._sudden)))
                else:
                    self._happen(stack, rng.choice(list(self._sudden)))
            if rng.random() < 0.1 and time.monotonic() < until:
                with ExitStack() as stack:
                    self._happen(stack, "topic made anew")
            self._pause(until, 0.0, 0.7)
        self._cluster.server.clear_faults()

    def _enter(self, stack: ExitStack, faults: dict[str, Callable[[], Any]], until: float) -> None:
        name = self._rng.choice(list(faults))
        self._note(stack, name)
        stack.enter_context(faults[name]())
        self._pause(until, 0.05, 2.5)

    def _happen(self, stack: ExitStack, name: str) -> None:
        self._note(stack, name)
        self._sudden[name]()

    def _note(self, stack: ExitStack, name: str) -> None:
        self._stage.report.faults[name] += 1
        stack.callback(self._stage.disturbances.end, self._stage.disturbances.begin())

    def _pause(self, until: float, least: float, most: float) -> None:
        time.sleep(max(0.0, min(self._rng.uniform(least, most), until - time.monotonic())))

    def _topic(self) -> Optional[Topic]:
        topics = [topic for topic in self._stage.topics if topic.current is not None]
        return self._rng.choice(topics) if topics else None

    # What lasts -------------------------------------------------------------------------------------------

    @contextmanager
    def _spu_away(self) -> Iterator[None]:
        spu = self._rng.choice(UNITS)
        self._away.add(spu)
        self._cluster.server.stop_spu(spu)
        yield
        self._cluster.server.start_spu(spu)
        self._away.remove(spu)

    @contextmanager
    def _stall(self) -> Iterator[None]:
        bytes_ = self._rng.randrange(1, 100_000)
        sent = self._rng.random() < 0.5
        with self._cluster.server.fault(
            "stall",
            plane="spu",
            sent_bytes=bytes_ if sent else None,
            received_bytes=None if sent else bytes_,
            count=self._rng.randrange(1, 4),
        ):
            yield

    @contextmanager
    def _black_hole(self) -> Iterator[None]:
        with self._cluster.server.fault("black-hole", plane=self._rng.choice(("spu", *UNITS))):
            yield

    @contextmanager
    def _sc_black_hole(self) -> Iterator[None]:
        with self._cluster.server.fault("black-hole", plane="controller"):
            yield

    @contextmanager
    def _delay(self) -> Iterator[None]:
        with self._cluster.server.fault(
            "delay",
            request=self._rng.choice(DELAYED),
            when=self._rng.choice(("before", "after")),
            seconds=self._rng.choice((0.01, 0.1, 0.5)),
        ):
            yield

    @contextmanager
    def _kill(self) -> Iterator[None]:
        self._cluster.kill()
        yield
        self._cluster.restart()
        if self._rng.random() < 0.3:
            # Before anybody has come back.
            self._make_anew()

    # What happens once ------------------------------------------------------------------------------------

    def _move_leader(self) -> None:
        topic = self._topic()
        if topic is not None and topic.current is not None:
            partition = self._rng.randrange(topic.current.partitions)
            there = [spu for spu in UNITS if spu not in self._away]
            self._cluster.server.move_leader(topic.name, partition, self._rng.choice(there))

    def _make_anew(self) -> None:
        topic = self._topic()
        if topic is not None:
            self._cluster.delete(topic)
            self._cluster.create(topic, self._rng.choice(PARTITIONS), self._rng.choice((1, 2)))

    def _never_answer(self) -> None:
        when: Any = self._rng.choice(("before", "after"))
        count = self._rng.randrange(1, 3)
        self._cluster.server.fault("never-answer", request="produce", when=when, count=count)

    def _close_at_byte(self) -> None:
        count = self._rng.randrange(1, 4)
        self._cluster.server.fault(
            "close", plane="spu", sent_bytes=self._rng.randrange(1, 50_000), count=count
        )

    def _refuse(self) -> None:
        count = self._rng.randrange(1, 4)
        self._cluster.server.fault("produce-error", code="NotLeaderForPartition", count=count)
