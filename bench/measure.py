"""Time, CPU time and threads of a process, and the result of a case, as the workers print it.

Runs in every interpreter that is measured, the official client's among them: standard library, Python 3.9.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Optional

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """CPU seconds of all threads of a process so far, in steps of 10 ms."""
    with open(f"/proc/{pid}/stat") as file:
        # The name of the program stands in parentheses and may hold anything.
        fields = file.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def threads() -> int:
    """Threads of this process now."""
    return len(os.listdir("/proc/self/task"))


class Clock:
    """A running measurement."""

    def __init__(self, server_pid: Optional[int]) -> None:
        self._server_pid = server_pid
        self._server_cpu = cpu_of(server_pid) if server_pid else 0.0
        self._cpu = time.process_time()
        self._started = time.perf_counter()

    def stop(
        self, count: int, samples: Optional[list[float]] = None, end: Optional[float] = None
    ) -> dict[str, Any]:
        """The result: `count` records, until now or until `end`, with latencies in seconds."""
        seconds = (end or time.perf_counter()) - self._started
        result: dict[str, Any] = {"count": count, "seconds": seconds, "cpu": time.process_time() - self._cpu}
        if self._server_pid:
            result["server_cpu"] = cpu_of(self._server_pid) - self._server_cpu
        if samples:
            samples.sort()
            result["p50"] = samples[len(samples) // 2] * 1e6
            result["p99"] = samples[min(int(len(samples) * 0.99), len(samples) - 1)] * 1e6
        return result


def values(count: int, size: int) -> list[bytes]:
    """Distinct values of the wanted size."""
    return [b"%0*d" % (size, index) for index in range(count)]


def chunks(pool: list[Any], count: int) -> list[list[Any]]:
    """`count` records as chunks of the size of `pool`."""
    full, rest = divmod(count, len(pool))
    return [pool] * full + ([pool[:rest]] if rest else [])


def task() -> dict[str, Any]:
    """What to do, and where: the argument of every worker."""
    document: dict[str, Any] = json.loads(sys.argv[1])
    return document


def report(result: dict[str, Any]) -> None:
    """Print the result."""
    print(json.dumps(result), flush=True)
