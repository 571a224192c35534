"""Figures of auctions and calls, and how they are printed."""

from __future__ import annotations

import click
from msgspec import Struct

from rtb.domain.histogram import Histogram

DEADLINE_MS = 100
TURNS = 3


class Figures(Struct):
    """Of some auctions or calls."""

    count: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    good: int = 0
    late: int = 0
    latency: Histogram | None = None

    @property
    def per_cpu_second(self) -> float:
        """How many a second of CPU time."""
        return self.count / self.cpu_s

    def add(self, other: Figures) -> None:
        """Take another turn's in."""
        self.count += other.count
        self.cpu_s += other.cpu_s
        self.wall_s += other.wall_s
        self.good += other.good
        self.late += other.late
        if self.latency is not None and other.latency is not None:
            self.latency.add(other.latency)


def rates(figures: Figures) -> str:
    """By the CPU-second, each, and a second."""
    return (
        f"{figures.per_cpu_second:10,.0f} a CPU-second, {1e6 * figures.cpu_s / figures.count:6.1f} us each, "
        f"{figures.count / figures.wall_s:8,.0f} a second"
    )


def show_load(title: str, figures: Figures) -> None:
    """What auctions among five bidders cost."""
    click.echo(
        f"  {title:10}{rates(figures)}, {figures.cpu_s / figures.wall_s:.0%} busy, "
        f"{figures.late / figures.count / 5:.1%} of the bidders late"
    )


def show(title: str, figures: Figures) -> None:
    """How long they took."""
    latency = figures.latency
    assert latency is not None
    click.echo(
        f"{title}: p50 {latency.percentile(50) / 1e6:.1f} ms, p99 {latency.percentile(99) / 1e6:.1f} ms, p99.9 "
        f"{latency.percentile(99.9) / 1e6:.1f} ms; {figures.good / figures.count:.2%} inside {DEADLINE_MS} ms"
    )
