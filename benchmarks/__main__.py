"""Measure, and print a table: `make bench`, `make bench ARGS="tasks-500 --repeat 9"`.

Nothing is asserted. Without arguments everything but the long benchmarks, in less than four minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from benchmarks import dashboard, fanout, interrupt, pressure, runs, scale, start, storm, tasks
from benchmarks.figures import Figure, Table, machine, rows
from benchmarks.measuring import Benchmark
from benchmarks.stage import server_version

ALL = [
    each
    for module in (tasks, fanout, start, interrupt, runs, scale, pressure, storm, dashboard)
    for each in module.BENCHMARKS
]


def main() -> None:
    options = _parse()
    chosen = _chosen(options.names, long=options.long)
    if not chosen:
        sys.exit(f"no such benchmark; there are {', '.join(each.name for each in ALL)}")
    print(machine(server_version()), end="\n\n")
    table = Table()
    table.heading()
    for each in chosen:
        repeat = options.repeat or (1 if options.short else each.repeat)
        for cells in rows(asyncio.run(_measure(each, repeat, short=options.short))):
            table.line(cells)


async def _measure(benchmark: Benchmark, repeat: int, *, short: bool) -> list[list[Figure]]:
    brought: list[list[Figure]] = []
    await (benchmark.short if short else benchmark.measure)(repeat, brought.append)
    return brought


def _chosen(names: list[str], *, long: bool) -> list[Benchmark]:
    """Those that are named, in full or by their beginning; without names all, the long ones only if asked for."""
    if not names:
        return [each for each in ALL if long or not each.long]
    exact = [each for each in ALL if each.name in names]
    return exact or [each for each in ALL if each.name.startswith(tuple(names)) and (long or not each.long)]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__.splitlines()[0] if __doc__ else "")
    names = ", ".join(f"{each.name} (long)" if each.long else each.name for each in ALL)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {names}; or how these begin")
    parser.add_argument("--repeat", type=int, metavar="N", help="how often each; the table has the medians")
    parser.add_argument("--short", action="store_true", help="less of everything, once: to see whether it works")
    parser.add_argument("--long", action="store_true", help="also what takes minutes, or an hour: a million tasks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
