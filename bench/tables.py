"""Turns results into tables: figures of a row, ratios to the other clients, targets, Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Optional

from cases import CRATE, LATENCY, OFFICIAL, OURS, RATE, THREADS, Contender, Section

Result = dict[str, Any]

HEADINGS = {
    "rate": "records/s",
    "latency": "p50 in us",
    "cost": "us per operation",
    "threads": "threads",
}


def figure(kind: str, result: Result) -> float:
    """The one number that a run is about."""
    if kind == RATE:
        return float(result["count"] / result["seconds"])
    if kind == LATENCY:
        return float(result["p50"])
    if kind == THREADS:
        return float(result["threads"])
    return float(result["seconds"] / result["count"] * 1e6)


@dataclass
class Row:
    """A contender and what its runs gave."""

    contender: Contender
    kind: str
    expected: int
    results: list[Result] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def figures(self) -> list[float]:
        return [figure(self.kind, result) for result in self.results]

    @property
    def median(self) -> Optional[float]:
        return statistics.median(self.figures) if self.results else None

    def middle(self, key: str) -> Optional[float]:
        """The median of a further figure."""
        found = [result[key] for result in self.results if key in result]
        return statistics.median(found) if found else None

    def per_million(self, key: str) -> Optional[float]:
        """CPU seconds for a million records or operations."""
        found = [result[key] / result["count"] * 1e6 for result in self.results if result.get("count")]
        return statistics.median(found) if found and key in self.results[0] else None

    @property
    def came_back(self) -> str:
        """How many of the records arrived, in the worst run."""
        worst = min((result["count"] for result in self.results), default=0)
        if worst >= self.expected:
            return f"all of {self.expected:,}"
        return f"**{worst:,} of {self.expected:,}**"

    @property
    def reached(self) -> Optional[bool]:
        """Whether the median reaches the target; None without one."""
        target, median = self.contender.target, self.median
        if target is None or median is None:
            return None
        return bool(median >= target if self.kind == RATE else median <= target)


def better(kind: str, mine: float, other: float) -> float:
    """How many times better `mine` is."""
    if not mine or not other:
        return 0.0
    return mine / other if kind == RATE else other / mine


def number(value: Optional[float], kind: str = "") -> str:
    if value is None:
        return "-"
    if kind == RATE:
        if value >= 1e6:
            return f"{value / 1e6:.2f} M"
        return f"{value / 1e3:.1f} k" if value < 1e5 else f"{value / 1e3:.0f} k"
    if kind == THREADS:
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 20 else f"{value:.0f}"


def best(rows: list[Row], family: str) -> Optional[float]:
    """The best median of a client in a section."""
    medians = [row.median for row in rows if row.contender.family == family and row.median is not None]
    if not medians:
        return None
    return max(medians) if rows[0].kind == RATE else min(medians)


def limit(row: Row) -> str:
    target = row.contender.target
    if target is None:
        return ""
    if row.kind == THREADS:
        return number(target, row.kind)
    return f"{'>' if row.kind == RATE else '<'} {number(target, row.kind)}"


def verdict(row: Row) -> str:
    """The target and whether it is reached."""
    if row.contender.target is None:
        return ""
    if row.reached is None:
        return f"{limit(row)}: not measured"
    return f"{limit(row)}: {'reached' if row.reached else '**not reached**'}"


Column = tuple[str, Callable[[Row], str]]


def section_table(section: Section, rows: list[Row]) -> str:
    """The Markdown of one section."""
    kind = section.kind
    references = {family: best(rows, family) for family in (CRATE, OFFICIAL)}

    def ratio(family: str) -> Callable[[Row], str]:
        def cell(row: Row) -> str:
            reference, median = references[family], row.median
            if reference is None or median is None:
                return "-"
            return f"{better(kind, median, reference):.2f}"

        return cell

    unit = HEADINGS[kind]
    columns: list[Column] = [("", lambda row: row.contender.name)]
    if section.sources:
        columns.append(("came back", lambda row: row.came_back))
    columns.append((f"{unit}, median", lambda row: f"**{number(row.median, kind)}**"))
    if section.repeat:
        columns.append(("min", lambda row: number(min(row.figures), kind)))
        columns.append(("max", lambda row: number(max(row.figures), kind)))
    if kind == LATENCY or section.case == "tasks":
        columns.append(("p99 in us", lambda row: number(row.middle("p99"))))
    columns += [
        (f"x {name}", ratio(family))
        for family, name in ((CRATE, "crate"), (OFFICIAL, "official"))
        if references[family] is not None
    ]
    if kind != THREADS:
        columns.append(("CPU s/M", lambda row: number(row.per_million("cpu"))))
        columns.append(("server CPU s/M", lambda row: number(row.per_million("server_cpu"))))
    if any(row.contender.target for row in rows):
        columns.append(("target", verdict))
    lines = [
        "| " + " | ".join(title for title, _ in columns) + " |",
        "|" + "|".join("---" if index == 0 else "---:" for index in range(len(columns))) + "|",
    ]
    for row in rows:
        if row.results:
            cells = [cell(row) for _, cell in columns]
        else:
            reason = row.failures[0] if row.failures else "not run"
            cells = [row.contender.name, f"failed: {reason}"] + [""] * (len(columns) - 2)
        lines.append("| " + " | ".join(cells) + " |")
    failed = [row for row in rows if row.results and row.failures]
    lines += [
        f"\n{row.contender.name}: {len(row.failures)} of {len(row.failures) + len(row.results)} runs failed "
        f"({row.failures[0]})."
        for row in failed
    ]
    return f"### {section.title}\n\n{section.note}\n\n" + "\n".join(lines) + "\n"


def summary(measured: list[tuple[Section, list[Row]]]) -> str:
    """Every target and what became of it, and every row of ours that another client beats."""
    lines = ["| what | ours | measured | target | x crate | x official |", "|---|---|---:|---:|---:|---:|"]
    losses: list[str] = []
    for section, rows in measured:
        references = {family: best(rows, family) for family in (CRATE, OFFICIAL)}
        for row in rows:
            median = row.median
            if row.contender.family != OURS or median is None:
                continue
            ratios = {
                family: None if reference is None else better(section.kind, median, reference)
                for family, reference in references.items()
            }
            name = row.contender.name.removeprefix("ours, ")
            losses += [
                f"* {section.title}: {name} is {value:.2f} x the {family}"
                for family, value in ratios.items()
                if value is not None and value < 1
            ]
            if row.contender.target is not None:
                cells = [section.title, name, number(median, section.kind), verdict(row)]
                cells += ["-" if value is None else f"{value:.2f}" for value in ratios.values()]
                lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines)
    if losses:
        text += "\n\nWhere another client is faster:\n\n" + "\n".join(losses)
    return text + "\n"
