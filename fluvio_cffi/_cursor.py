"""A place within one batch of the library: records come out one by one, or all that is left as a batch.

A cursor is made empty, before the call of the library that fills it, and thrown away whole. So nothing is
ever handed from one place to another: whatever strikes the reader, and wherever (a cancellation, Ctrl-C), the
next call goes on with the same cursor. No I/O and no waiting; the asynchronous client and the twin share it.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import length_hint
from typing import Any, Optional

from ._records import TURN_RECORDS, Batch, Record, Taken, weigh

__all__ = ["Cursor"]


class Cursor:
    """See the module. Of `records` each is given out once; it holds at most one turn's records."""

    __slots__ = ("_batch", "_position", "_taken", "_topic", "records")

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._taken = Taken()
        self._batch: Optional[Batch] = None
        # Records up to here went into `records`, which may have some left.
        self._position = 0
        self.records: Iterator[Record] = iter(())

    @property
    def filled(self) -> bool:
        """Whether the library has put a batch here."""
        return self._taken.filled

    @property
    def begun(self) -> bool:
        """Whether records of it were given out."""
        return self._position > 0

    def place(self) -> tuple[Any, Any]:
        """Where the library puts the batch and its view. Only while it is not filled."""
        return self._taken.out, self._taken.view

    def turn(self) -> bool:
        """Have the next turn's records in `records`. False: there are no more."""
        batch = self._whole()
        start = self._position
        stop = min(start + TURN_RECORDS, len(batch))
        if start == stop:
            return False
        records = iter(list(batch._some(start, stop)))
        self._position, self.records = stop, records
        return True

    @property
    def left(self) -> int:
        """How many records of it were not given out."""
        if not self._taken.filled:
            return 0
        return len(self._whole()) - self._position + length_hint(self.records)

    def rest(self) -> Optional[Batch]:
        """What is left of it, None if that is nothing. The cursor has to be thrown away."""
        whole, left = self._whole(), self.left
        if not left:
            return None
        return whole if left == len(whole) else whole._rest(len(whole) - left)

    def free(self) -> None:
        """Give the response back now. Only if nothing of it was given out as a batch."""
        self._taken.free()

    def _whole(self) -> Batch:
        batch = self._batch
        if batch is None:
            view = self._taken.view
            batch = self._batch = Batch(self._topic, self._taken, 0, view.count)
            weigh(view.data_len)
        return batch
