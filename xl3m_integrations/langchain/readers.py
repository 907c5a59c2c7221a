"""The models that answer, for LangChain's LLM and chat model: the engine's own, and any LangChain model."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from langchain_core.callbacks import CallbackManager, UsageMetadataCallbackHandler
from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase

from xl3m_integrations.backends.base import Generator
from xl3m_integrations.concurrency import Cancellation, in_thread, stream_in_thread
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import SettingError
from xl3m_integrations.fitting import Window
from xl3m_integrations.langchain.messages import as_chunk, as_message, turn_of

Said: TypeAlias = str | Sequence[BaseMessage]

# Where LangChain's local models say how many tokens they read.
_WINDOW_FIELDS = ("n_ctx", "num_ctx", "context_window", "max_input_tokens", "max_model_len")
_UNBOUNDED = 10**8
# The wrapped model's work is part of our own run: as a run beside it, every token would be reported twice.
_NO_RUN: RunnableConfig = {"callbacks": []}


def unbound(llm: Any) -> Any:
    """The model within what `bind`, `with_retry` and their like have put around it."""
    return unbound(llm.bound) if isinstance(llm, RunnableBindingBase) else llm


def window_of(llm: Any, given: int | None) -> int:
    """Tokens that a wrapped model reads and writes.

    Args:
        llm: The model.
        given: What the user says; believed.

    Raises:
        SettingError: Nobody says.
    """
    bare = unbound(llm)
    profile = getattr(bare, "profile", None) or {}
    pipeline = getattr(bare, "pipeline", None)
    config = getattr(getattr(pipeline, "model", None), "config", None)
    said = [given, *(getattr(bare, name, None) for name in _WINDOW_FIELDS), profile.get("max_input_tokens")]
    said.append(getattr(config, "max_position_embeddings", None))
    window = next((tokens for tokens in said if isinstance(tokens, int) and 0 < tokens < _UNBOUNDED), None)
    if window is None:
        raise SettingError(f"{type(bare).__name__} does not say how many tokens it reads; pass reader_window=.")
    return window


def counter_of(llm: Any) -> Callable[[str], int]:
    """Counts a wrapped model's tokens by its own tokenizer; three bytes make a token where it has none to hand."""
    bare = unbound(llm)

    def count(text: str) -> int:
        return int(bare.get_num_tokens(text))

    has_own = getattr(bare, "custom_get_token_ids", None) is not None or any(
        name in vars(cls)
        for cls in type(bare).__mro__
        if cls is not BaseLanguageModel and cls.__module__ != "langchain_core.language_models.base"
        for name in ("get_num_tokens", "get_token_ids")
    )
    return count if has_own else lambda text: (len(text.encode("utf-8")) + 2) // 3


class Reader(Protocol):
    """Answers what fits: a prompt, or a conversation."""

    @property
    def window(self) -> Window:
        """Its window."""

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of every call."""

    def length(self, turns: Sequence[tuple[str, str]]) -> int:
        """Tokens of a conversation of (role, text)."""

    def answers(self, said: Sequence[Said]) -> list[AIMessage]:
        """The answer to each."""

    async def aanswers(self, said: Sequence[Said]) -> list[AIMessage]:
        """`answers`, which leaves the event loop free."""

    def stream(self, said: Said) -> Iterator[AIMessageChunk]:
        """The answer in pieces."""

    def astream(self, said: Said) -> AsyncIterator[AIMessageChunk]:
        """`stream`, which leaves the event loop free. Closing it stops the work."""


@dataclass(frozen=True)
class OwnReader:
    """The engine's own model."""

    generator: Generator
    window: Window
    timeout: float | None
    settings: dict[str, Any]
    name: str

    @classmethod
    def of(
        cls, engine: XL3M, limit: int | None, stop: tuple[str, ...], timeout: float | None, options: dict[str, Any]
    ) -> OwnReader:
        """The engine's reader, with these settings."""
        reader = engine.reader
        if reader is None:
            raise SettingError("This engine has no reader, so it can select but not answer; pass llm=.")
        answer = limit or engine.max_new_tokens
        settings = options | {"max_new_tokens": answer, "stop": stop}
        return cls(reader, Window(reader.window, answer, reader.count_prompt), timeout, settings, engine.name)

    def length(self, turns: Sequence[tuple[str, str]]) -> int:
        """See `Reader.length`."""
        return self.window.count(self.generator.render(turns))

    def answers(self, said: Sequence[Said], cancellation: Cancellation | None = None) -> list[AIMessage]:
        """See `Reader.answers`. One batch where nothing asks for a watch on each answer."""
        prompts = [self._prompt(one) for one in said]
        if len(prompts) > 1 and self.timeout is None:
            texts = self.generator.complete_many(prompts, **self.settings)
        else:
            texts = ["".join(self._complete(prompt, cancellation)) for prompt in prompts]
        whole = [text if isinstance(one, str) else text.strip() for one, text in zip(said, texts, strict=True)]
        pairs = zip(prompts, whole, strict=True)
        return [AIMessage(content=text, **self._told(prompt, text)) for prompt, text in pairs]

    async def aanswers(self, said: Sequence[Said]) -> list[AIMessage]:
        """See `Reader.aanswers`."""
        return await in_thread(lambda cancellation: self.answers(said, cancellation))

    def stream(self, said: Said, cancellation: Cancellation | None = None) -> Iterator[AIMessageChunk]:
        """See `Reader.stream`."""
        prompt, written = self._prompt(said), ""
        for piece in self._complete(prompt, cancellation):
            shown = piece if written or isinstance(said, str) else piece.lstrip()
            if shown:
                written += shown
                yield AIMessageChunk(content=shown)
        yield AIMessageChunk(content="", chunk_position="last", **self._told(prompt, written))

    def astream(self, said: Said) -> AsyncIterator[AIMessageChunk]:
        """See `Reader.astream`."""
        return stream_in_thread(lambda cancellation: self.stream(said, cancellation))

    def _prompt(self, said: Said) -> str:
        if isinstance(said, str):
            return said
        return self.generator.render([(turn.role, turn.text) for turn in map(turn_of, said)])

    def _complete(self, prompt: str, cancellation: Cancellation | None) -> Iterator[str]:
        pieces = self.generator.complete(prompt, **self.settings)
        began = time.monotonic()
        with closing(pieces):  # type: ignore[type-var]
            for piece in pieces:
                if cancellation is not None and cancellation.cancelled:
                    return
                if self.timeout is not None and time.monotonic() - began > self.timeout:
                    raise TimeoutError(f"No whole answer within {self.timeout} s; raise timeout or lower max_tokens.")
                yield piece

    def _told(self, prompt: str, text: str) -> dict[str, Any]:
        read, written = self.window.count(prompt), self.window.count(text) if text else 0
        usage = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
        return {"usage_metadata": usage, "response_metadata": {"model_name": self.name, "model_provider": "xl3m"}}


@dataclass(frozen=True)
class WrappedReader:
    """Any LangChain model."""

    llm: Any
    window: Window
    settings: dict[str, Any]

    @classmethod
    def of(
        cls, llm: Any, window: int | None, limit: int | None, stop: tuple[str, ...], options: dict[str, Any]
    ) -> WrappedReader:
        """`llm` with these settings."""
        tokens = window_of(llm, window)
        settings = options | ({"stop": list(stop)} if stop else {}) | ({"max_tokens": limit} if limit else {})
        answer = limit or max(16, min(256, tokens // 10))
        return cls(llm, Window(tokens, answer, counter_of(llm)), settings)

    def length(self, turns: Sequence[tuple[str, str]]) -> int:
        """See `Reader.length`. The model renders by itself; a few tokens a message are what chat formats take."""
        return sum(self.window.count(text) + 8 for _, text in turns)

    def answers(self, said: Sequence[Said]) -> list[AIMessage]:
        """See `Reader.answers`; the model batches as it does by itself."""
        ours = _our_own()
        return [ours(as_message(output)) for output in self.llm.batch([*said], _NO_RUN, **self.settings)]

    async def aanswers(self, said: Sequence[Said]) -> list[AIMessage]:
        """See `Reader.aanswers`."""
        ours = _our_own()
        return [ours(as_message(output)) for output in await self.llm.abatch([*said], _NO_RUN, **self.settings)]

    def stream(self, said: Said) -> Iterator[AIMessageChunk]:
        """See `Reader.stream`."""
        ours = _our_own()
        for piece in self.llm.stream(said, _NO_RUN, **self.settings):
            yield ours(as_chunk(piece))

    async def astream(self, said: Said) -> AsyncIterator[AIMessageChunk]:
        """See `Reader.astream`."""
        ours = _our_own()
        async for piece in self.llm.astream(said, _NO_RUN, **self.settings):
            yield ours(as_chunk(piece))


def _our_own() -> Callable[[Any], Any]:
    """Makes a wrapped model's message one of our run, so that its usage is counted once.

    `get_usage_metadata_callback` hears the wrapped model in any case, and counts nothing of ours if it names no model.
    """
    if not any(isinstance(handler, UsageMetadataCallbackHandler) for handler in CallbackManager.configure().handlers):
        return lambda message: message

    def unnamed(message: AIMessage) -> AIMessage:
        told = {name: value for name, value in message.response_metadata.items() if name != "model_name"}
        return message.model_copy(update={"response_metadata": told})

    return unnamed
