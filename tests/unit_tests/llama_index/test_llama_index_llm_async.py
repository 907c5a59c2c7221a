"""The LlamaIndex LLM from async code and from many threads: the same answers, and the loop is never blocked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asking import LONG, MESSAGES, PROMPT, TEMPLATE
from event_loop import assert_cancelling_stops, ticks_during
from lockers import QUERY, RAIN

from xl3m_integrations import XL3M
from xl3m_integrations.llama_index import XL3MLLM


async def test_async_methods_give_the_same(llm: XL3MLLM) -> None:
    whole, chatted = llm.complete(PROMPT), llm.chat(MESSAGES)
    assert await llm.acomplete(PROMPT) == whole
    assert [piece async for piece in await llm.astream_complete(PROMPT)] == list(llm.stream_complete(PROMPT))
    assert await llm.achat(MESSAGES) == chatted
    assert [piece async for piece in await llm.astream_chat(MESSAGES)] == list(llm.stream_chat(MESSAGES))


async def test_predict_stream_and_their_async_twins_agree(llm: XL3MLLM) -> None:
    arguments = {"context_str": LONG, "query_str": QUERY}
    whole = llm.predict(TEMPLATE, **arguments)
    assert "".join(llm.stream(TEMPLATE, **arguments)) == whole
    assert await llm.apredict(TEMPLATE, **arguments) == whole
    assert "".join([piece async for piece in await llm.astream(TEMPLATE, **arguments)]) == whole


CALLS: dict[str, Callable[[XL3MLLM], Awaitable[Any]]] = {
    "acomplete": lambda llm: llm.acomplete(PROMPT),
    "achat": lambda llm: llm.achat(MESSAGES),
    "astream_complete": lambda llm: _drained(llm.astream_complete(PROMPT)),
    "astream_chat": lambda llm: _drained(llm.astream_chat(MESSAGES)),
    "apredict": lambda llm: llm.apredict(TEMPLATE, context_str=LONG, query_str=QUERY),
    "astream": lambda llm: _drained(llm.astream(TEMPLATE, context_str=LONG, query_str=QUERY)),
}


async def _drained(stream: Awaitable[Any]) -> list[Any]:
    return [piece async for piece in await stream]


@pytest.mark.parametrize("call", sorted(CALLS))
async def test_the_loop_is_not_blocked(llm: XL3MLLM, call: str) -> None:
    """CustomLLM's own async methods let the loop run not once."""
    _, ticks = await ticks_during(CALLS[call](llm))
    assert ticks > 20


@pytest.mark.parametrize("call", sorted(CALLS))
async def test_cancelling_stops_the_work(xl3m: XL3M, llm: XL3MLLM, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started, stopped = threading.Event(), threading.Event()

    def forever(texts: Any, questions: Any, *, progress: Any, **how: Any) -> Any:
        started.set()
        try:
            while True:
                progress(None)
        except asyncio.CancelledError:
            stopped.set()
            raise

    monkeypatch.setattr(xl3m, "select_documents_many", forever)
    await assert_cancelling_stops(CALLS[call](llm), started, stopped)


async def test_leaving_a_stream_early_closes_the_readers(llm: XL3MLLM, endless: threading.Event) -> None:
    for _ in llm.stream_complete("Hello"):
        break
    assert endless.is_set()
    endless.clear()
    stream = await llm.astream_complete("Hello")
    async for _ in stream:
        break
    del _
    await stream.aclose()
    del stream
    assert await asyncio.to_thread(endless.wait, 60)


def test_sixteen_threads_give_the_answers_of_one(llm: XL3MLLM) -> None:
    prompts = [
        f"{RAIN * 30}The pin of locker {n} is {n}{n}. {RAIN * 35}\n\nWhat is the pin of locker {n}?"
        for n in range(10, 26)
    ]
    serial = [llm.complete(prompt, max_new_tokens=3) for prompt in prompts]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda prompt: llm.complete(prompt, max_new_tokens=3), prompts)) == serial
