"""Blocking work from async code: the event loop stays free, and cancelling the task stops the work."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from typing_extensions import Self

from xl3m_integrations.types import Progress

T = TypeVar("T")

_END = object()


class Cancellation:
    """Tells running work that nobody waits for it any more. As a progress callback it stops a scoring pass."""

    def __init__(self, then: Callable[[Progress], None] | None = None) -> None:
        self._event = threading.Event()
        self._then = then

    def cancel(self) -> None:
        """Ask the work to stop."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._event.is_set()

    def __call__(self, progress: Progress) -> None:
        """Raise `asyncio.CancelledError` within the work once it was asked to stop."""
        if self._event.is_set():
            raise asyncio.CancelledError
        if self._then is not None:
            self._then(progress)


async def in_thread(work: Callable[[Cancellation], T]) -> T:
    """Run `work` in a thread, in the caller's context."""
    cancellation = Cancellation()
    try:
        return await asyncio.to_thread(work, cancellation)
    except asyncio.CancelledError:
        cancellation.cancel()
        raise


async def stream_in_thread(work: Callable[[Cancellation], Iterator[T]]) -> AsyncIterator[T]:
    """Iterate over what `work` gives in a thread. Leaving the loop early, or cancelling, closes the iterator."""
    cancellation = Cancellation()
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Any] = asyncio.Queue()

    def produce() -> None:
        """Hand over each piece, then how it ended."""
        try:
            pieces = work(cancellation)
            for piece in pieces:
                loop.call_soon_threadsafe(queue.put_nowait, (piece, None))
                if cancellation.cancelled:
                    close = getattr(pieces, "close", None)
                    if close is not None:
                        close()
                    break
            outcome: BaseException | None = None
        except BaseException as error:
            outcome = error
        loop.call_soon_threadsafe(queue.put_nowait, (_END, outcome))

    context = contextvars.copy_context()
    running = loop.run_in_executor(None, context.run, produce)
    try:
        while True:
            piece, error = await queue.get()
            if error is not None:
                raise error
            if piece is _END:
                return
            yield piece
    finally:
        cancellation.cancel()
        await asyncio.wait([running])  # at once, or a loop that ends now would leave this task pending


class LoopThread:
    """An event loop in a thread of its own, for blocking code that wants many requests in flight.

    Used in a `with`: leaving it cancels what still runs and ends the thread.
    """

    def __enter__(self) -> Self:
        """Start the loop."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="xl3m-requests", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, once every task has ended."""
        self.run(self._ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `work` on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` on the loop and wait for it."""
        return self.submit(work).result()

    @staticmethod
    async def _ended() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
