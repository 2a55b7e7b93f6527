"""Runs a pool as `corral pool` does: `launch.py APP -s URL -n NAMESPACE -p WORKERS -c SLOTS`."""

import argparse
import asyncio
import signal
import sys

from corral.logs import log_to_stderr
from corral.pool import PoolOptions, Stopping, run_pool
from corral.settings import Settings


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("app")
    parser.add_argument("-s", dest="server", required=True)
    parser.add_argument("-n", dest="namespace", required=True)
    parser.add_argument("-p", dest="workers", type=int, required=True)
    parser.add_argument("-c", dest="slots", type=int, required=True)
    parser.add_argument("--topics")
    asked = parser.parse_args()
    options = PoolOptions(
        app=asked.app,
        urls=[asked.server],
        settings=Settings.from_env(namespace=asked.namespace),
        workers=asked.workers,
        slots=asked.slots,
        topics=asked.topics.split(",") if asked.topics else None,
    )
    log_to_stderr("pool")
    stopping = Stopping()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.ask)
    return await run_pool(options, stopping)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
