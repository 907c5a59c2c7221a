"""What async methods owe the event loop: it keeps turning while they work, and a cancelled call stops its work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import TypeVar

import pytest

Result = TypeVar("Result")


async def ticks_during(work: Awaitable[Result]) -> tuple[Result, int]:
    """The result of `work`, and how often the event loop has come round meanwhile."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    try:
        return await work, ticks
    finally:
        ticking.cancel()


async def assert_cancelling_stops(work: Awaitable[object], started: threading.Event, stopped: threading.Event) -> None:
    """Cancelled when it has `started`, the call is over at once for its caller and soon for the thread that works."""
    task = asyncio.ensure_future(work)
    assert await asyncio.to_thread(started.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(stopped.wait, 60)
