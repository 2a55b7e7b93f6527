"""A pool in a process of its own: `python -m benchmarks.serve OPTIONS`, which are PoolOptions as JSON.

It says `ready` when its workers work, and drains when its standard input ends, so that it never outlives the benchmark.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from corral.pool import PoolOptions, Stopping, run_pool


async def serve(options: PoolOptions) -> int:
    loop = asyncio.get_running_loop()
    stopping = Stopping()

    def ended() -> None:
        loop.remove_reader(sys.stdin.fileno())
        stopping.ask()

    loop.add_reader(sys.stdin.fileno(), ended)
    return await run_pool(options, stopping, on_ready=lambda: print("ready", flush=True))


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(msgspec.json.decode(sys.argv[1], type=PoolOptions))))
