"""The rounds: everything begins anew in each, but for the server, which has all that was before.

In a round the actors send and read while the disturber is at work. Then it is quiet: what was handed over
has to be delivered, everything is read once more, the readers have to come to the end as well, and all of
it is judged.
"""

from __future__ import annotations

import faulthandler
import random
import sys
import tempfile
import threading
import time

import anyio

from fluvio_cffi import FluvioTimeoutError, Offset, sync
from tests.campaign import actors, twin
from tests.campaign.faults import PARTITIONS, Cluster, Disturber
from tests.campaign.model import Incarnation, Reading
from tests.campaign.report import Report
from tests.campaign.stage import CLIENT, PATIENCE, Stage, Topic

TOPICS = 3
# A round is disturbed for so long, at most.
LENGTH = 15.0
# What comes at the end of a round takes a while.
SETTLING = 3.0
# Behind the last acknowledged record there may be copies.
QUIET = 0.3


class Hung(Exception):
    """An actor did not come to its end: there is no going on."""


def run(seed: int, seconds: float) -> Report:
    """Rounds until the time is over."""
    report = Report(seed)
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="fluvio-campaign-") as folder:
        cluster = Cluster(folder)
        try:
            number = 0
            while number == 0 or time.monotonic() < until - 2 * SETTLING:
                number += 1
                length = min(LENGTH, max(until - time.monotonic() - SETTLING, 1.0))
                _round(cluster, f"{seed} {number}", number, length, report)
                report.count("rounds")
                print(f"round {number}: {sum(report.wrong.values())} wrong", file=sys.stderr, flush=True)
        except Hung as hung:
            report.find("hung", str(hung))
            faulthandler.dump_traceback(all_threads=True)
        finally:
            cluster.server.kill()
    return report


def _round(cluster: Cluster, seed: str, number: int, length: float, report: Report) -> None:
    rng = random.Random(seed)
    topics = [Topic(f"round-{number}-{index}") for index in range(TOPICS)]
    for topic in topics:
        cluster.create(topic, rng.choice(PARTITIONS), rng.choice((1, 2)))
    stage = Stage(cluster.endpoint, topics, report)
    threads = [
        *(_loop(stage, backend, seed) for backend in ("asyncio", "trio")),
        *twin.threads(stage, seed),
    ]
    for thread in threads:
        thread.start()
    Disturber(cluster, stage, rng).run(time.monotonic() + length)
    stage.stopping.set()
    if not stage.wait_for_producers():
        raise Hung("producers")
    audits = {}
    with sync.connect(cluster.endpoint, **CLIENT) as client:
        for topic in topics:
            assert topic.current is not None
            audits[topic.current] = _audit(client, topic.current, report)
    stage.finish(
        {
            incarnation: {partition: len(records) for partition, records in audit.records.items()}
            for incarnation, audit in audits.items()
        }
    )
    deadline = time.monotonic() + 3 * PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            raise Hung(thread.name)
    for topic in topics:
        for incarnation in topic.incarnations:
            report.judge(incarnation, audits.get(incarnation), stage.disturbances)
        cluster.delete(topic)


def _loop(stage: Stage, backend: str, seed: str) -> threading.Thread:
    def play() -> None:
        anyio.run(actors.play, stage, backend, seed, 3, 4, backend=backend)

    return stage.thread(backend, play)


def _audit(client: sync.Client, incarnation: Incarnation, report: Report) -> Reading:
    """Read everything that stands in a topic."""
    audit = Reading(incarnation, "audit")
    ends = incarnation.acknowledged_ends()
    with client.consumer(incarnation.topic, start=Offset.beginning()) as consumer:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                batch = consumer.receive_batch(timeout=QUIET)
            except FluvioTimeoutError:
                if audit.reaches(ends):
                    return audit
                continue
            for offset, value in zip(batch.offsets(), batch.values()):
                audit.add(batch.partition, offset, value)
    report.find("stuck", f"audit of {incarnation}: {ends}")
    return audit
