"""Blocking work from async code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from event_loop import assert_cancelling_stops

from xl3m_integrations.concurrency import Cancellation, in_thread, stream_in_thread
from xl3m_integrations.types import Progress

NOW = Progress(0, None, 0, 0, 0.0)


async def test_work_runs_in_another_thread_and_gives_its_result() -> None:
    assert await in_thread(lambda _: threading.current_thread() is threading.main_thread()) is False


async def test_errors_come_back() -> None:
    def fail(_: Cancellation) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await in_thread(fail)


async def test_cancelling_the_task_reaches_the_work() -> None:
    started, stopped = threading.Event(), threading.Event()

    def work(cancellation: Cancellation) -> None:
        started.set()
        try:
            while True:
                cancellation(NOW)
        except asyncio.CancelledError:
            stopped.set()
            raise

    await assert_cancelling_stops(in_thread(work), started, stopped)


async def test_a_stream_gives_all_pieces_in_order() -> None:
    assert [piece async for piece in stream_in_thread(lambda _: iter(range(50)))] == list(range(50))


async def test_an_error_within_a_stream_comes_after_the_pieces_before_it() -> None:
    def pieces(_: Cancellation) -> Iterator[int]:
        yield 1
        raise ValueError("no")

    got = []
    with pytest.raises(ValueError, match="no"):
        async for piece in stream_in_thread(pieces):
            got.append(piece)
    assert got == [1]


async def test_leaving_a_stream_early_closes_the_iterator() -> None:
    closed = threading.Event()

    def pieces(_: Cancellation) -> Iterator[int]:
        try:
            n = 0
            while True:
                n += 1
                yield n
        finally:
            closed.set()

    stream = stream_in_thread(pieces)
    assert await anext(stream) == 1
    await stream.aclose()
    assert closed.is_set()


def test_a_cancellation_passes_progress_on_until_it_is_cancelled() -> None:
    seen: list[Progress] = []
    cancellation = Cancellation(seen.append)
    cancellation(NOW)
    cancellation.cancel()
    with pytest.raises(asyncio.CancelledError):
        cancellation(NOW)
    assert seen == [NOW]
