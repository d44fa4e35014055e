"""Judges what happened, and tells it.

What was acknowledged stands at its offset; nothing stands twice unless its delivery was uncertain or
something was disturbed while it was on its way; the records of a source keep their order within a
partition; what was not sent stands nowhere; a reading has every offset once, in order, and nothing of
another incarnation; all readings agree.
"""

from __future__ import annotations

import threading
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Optional

from tests.campaign.model import (
    ACKED,
    NOT_SENT,
    PENDING,
    Disturbances,
    Incarnation,
    Reading,
    Source,
    pack,
    unpack,
)

# Of each kind of finding so many are told in words.
EXAMPLES = 5
NOTHING: array[int] = array("Q")


class Report:
    """What was counted, and what should not have been. Any thread may add to it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._examples: list[str] = []
        self._lock = threading.Lock()

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

    def find(self, kind: str, text: str) -> None:
        """Something is wrong."""
        with self._lock:
            self.wrong[kind] += 1
            if self.wrong[kind] <= EXAMPLES:
                self._examples.append(f"{kind}: {text}")

    def __str__(self) -> str:
        def listed(counts: Counter[str]) -> str:
            return ", ".join(f"{number} {what}" for what, number in sorted(counts.items())) or "none"

        always = {"lost": 0, "doubled without cause": 0, "reordered": 0}
        lines = [
            f"seed {self.seed}",
            f"records: {listed(self.counts)}",
            f"faults: {listed(self.faults)}",
            f"wrong: {listed(Counter({**always, **self.wrong}))}",
            *self._examples,
        ]
        return "\n".join(lines)

    def judge(self, incarnation: Incarnation, audit: Optional[Reading], disturbances: Disturbances) -> None:
        """Compare what was acknowledged with what was read.

        Args:
            incarnation: Whose records.
            audit: All that stands in it, read in the end; None if it was deleted, where readings have to do.
            disturbances: When something was wrong.
        """
        readings = [*([] if audit is None else [audit]), *incarnation.readings]
        for reading in readings:
            for kind, text in reading.wrong:
                self.find(kind, text)
            self.count("read before the news", reading.early)
        self.count("read", sum(map(len, incarnation.readings)))
        log = self._agreed(readings)
        copies: Counter[int] = Counter()
        for records in log.values():
            copies.update(records)
        for source in incarnation.sources:
            self._judge_source(source, log, copies, audit is not None, disturbances)
        self._judge_order(incarnation, log)

    def _agreed(self, readings: Iterable[Reading]) -> dict[int, array[int]]:
        """The longest reading of each partition; the others must have read the same."""
        log: dict[int, array[int]] = {}
        readers: dict[int, str] = {}
        for reading in readings:
            for partition, records in reading.records.items():
                known = log.get(partition, NOTHING)
                common = min(len(known), len(records))
                if known[:common] != records[:common]:
                    offset = next(at for at in range(common) if known[at] != records[at])
                    # A gap was found when it was read.
                    if known[offset] and records[offset]:
                        who = f"{readers[partition]} and {reading.name}"
                        self.find("read differently", f"{partition}:{offset} of {reading.incarnation}: {who}")
                if len(records) > len(known):
                    log[partition], readers[partition] = records, reading.name
        return log

    def _judge_source(
        self,
        source: Source,
        log: dict[int, array[int]],
        copies: Counter[int],
        complete: bool,
        disturbances: Disturbances,
    ) -> None:
        self.count("sent", len(source.outcomes))
        for number, outcome in enumerate(source.outcomes):
            record = pack(source.number, number)
            name = f"{source.name} {number} of {source.incarnation}"
            if outcome == PENDING:
                self.find("without an outcome", name)
            elif outcome == NOT_SENT:
                self.count("not sent")
                if copies[record]:
                    self.find("written though not sent", name)
                continue
            elif outcome == ACKED:
                self.count("acknowledged")
                end = source.incarnation.ended
                if end is not None and source.ended[number] >= end:
                    # It may stand in the next one, as long as the news of the end is on its way.
                    self.count("acknowledged after the end")
                    if not source.incarnation.is_news(source.started[number]):
                        self.find("accepted long after the end", name)
                    continue
                partition, offset = source.partitions[number], source.offsets[number]
                records = log.get(partition, NOTHING)
                found = records[offset] if offset < len(records) else 0
                if found != record and (complete or found):
                    there = "source {}'s {}".format(*unpack(found)) if found else "nothing"
                    self.find("lost", f"{name}, acknowledged at {partition}:{offset}, where {there} stands")
            if copies[record] > 1:
                quiet = not disturbances.meet(source.started[number], source.ended[number])
                if outcome == ACKED and quiet:
                    self.find("doubled without cause", f"{name}: {copies[record]} times")
                else:
                    self.count("doubled with cause")

    def _judge_order(self, incarnation: Incarnation, log: dict[int, array[int]]) -> None:
        """By source, the first copies of what was acknowledged must rise.

        A record that was given up with an unknown outcome may still be on its way and come behind others.
        """
        sources = {source.number: source for source in incarnation.sources}
        for partition, records in log.items():
            last: dict[int, int] = {}
            seen: set[int] = set()
            for offset, record in enumerate(records):
                if not record or record in seen:
                    continue
                seen.add(record)
                source, number = unpack(record)
                if source not in sources or sources[source].outcomes[number] != ACKED:
                    continue
                if number < last.get(source, -1):
                    text = f"{number} behind {last[source]} at {partition}:{offset} of {incarnation}"
                    self.find("reordered", f"{sources[source].name}: {text}")
                last[source] = max(number, last.get(source, -1))
