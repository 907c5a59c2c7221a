"""The models that answer, for LlamaIndex's LLM: the engine's own, and any LlamaIndex LLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CitableBlock,
    CitationBlock,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import LLM
from llama_index.core.utils import get_tokenizer

from xl3m_integrations.backends.base import Generator
from xl3m_integrations.concurrency import Cancellation, in_thread, stream_in_thread
from xl3m_integrations.conversation import Role, Turn
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import InputError, SettingError

Response = TypeVar("Response", CompletionResponse, ChatResponse)

MESSAGE_TOKENS = 8  # what a chat API puts around a message, at most
_UNBOUNDED = 10**8
_ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
    MessageRole.TOOL: "tool",
}


def window_of(llm: LLM, given: int | None) -> int:
    """Tokens that a wrapped model reads and writes.

    Args:
        llm: The model.
        given: What the user says; believed.

    Raises:
        SettingError: Nobody says, or nobody can mean it.
    """
    window = llm.metadata.context_window if given is None else given
    if not 0 < window < _UNBOUNDED:
        source = "reader_window" if given is not None else f"The context_window of {type(llm).__name__}"
        raise SettingError(
            f"{source} is {window} tokens, which is no window of a model (1 to {_UNBOUNDED - 1}); pass reader_window= "
            "with the number of tokens that the reader reads."
        )
    return window


def turns_of(messages: Sequence[ChatMessage]) -> list[Turn]:
    """LlamaIndex's messages as turns.

    Raises:
        InputError: A message holds something else than text.
    """
    return [Turn(_ROLES[message.role], _text_of(message)) for message in messages]


def with_texts(messages: Sequence[ChatMessage], texts: Sequence[str | None]) -> list[ChatMessage]:
    """The messages with other texts. One of which nothing was kept is left out, unless it is part of a tool call."""
    return [
        message if text == _text_of(message) else _with_text(message, text or "")
        for message, text in zip(messages, texts, strict=True)
        if text is not None or message.additional_kwargs or _others(message)
    ]


def _with_text(message: ChatMessage, text: str) -> ChatMessage:
    return message.model_copy(update={"blocks": [TextBlock(text=text), *_others(message)]})


def _text_of(message: ChatMessage) -> str:
    return "\n".join(text for block in message.blocks if not _is_other(block) for text in _texts_of(block, message))


def _texts_of(block: Any, message: ChatMessage) -> list[str]:
    if isinstance(block, TextBlock):
        return [block.text]
    if isinstance(block, CitableBlock):
        return [text for inner in block.content for text in _texts_of(inner, message)]
    if isinstance(block, CitationBlock):
        return _texts_of(block.cited_content, message)
    raise InputError(
        f"A {message.role.value} message holds {block.block_type} content, but XL3M reads text; leave it out, or put "
        "what it says into words."
    )


def _others(message: ChatMessage) -> list[Any]:
    return [block for block in message.blocks if _is_other(block)]


def _is_other(block: Any) -> bool:
    """Whether a block says nothing to a reader of text, but must stay where a model gets the messages themselves."""
    return isinstance(block, (CachePoint, ThinkingBlock, ToolCallBlock))


# ---------------------------------------------------------------------------------------------- what fits
@dataclass(frozen=True, slots=True)
class Fitting:
    """What fits the window.

    Attributes:
        answer: Tokens of the answer, at most.
        options: Arguments of the reader.
        info: Spans, scores and token count.
    """

    answer: int
    options: dict[str, Any]
    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FittingPrompt(Fitting):
    """A prompt that fits the window.

    Attributes:
        text: The prompt.
        wrapped: The same as the own model reads it.
        formatted: Whether `text` is formatted; else a wrapped model puts its own format around it.
    """

    text: str
    wrapped: str
    formatted: bool


@dataclass(frozen=True, slots=True)
class FittingChat(Fitting):
    """A conversation that fits the window.

    Attributes:
        messages: The messages as they came.
        texts: What was kept of each; None of one that is left out.
    """

    messages: Sequence[ChatMessage]
    texts: Sequence[str | None]


# ---------------------------------------------------------------------------------------------- the own model
@dataclass(frozen=True, slots=True)
class OwnReader:
    """The engine's own model.

    Attributes:
        generator: It.
        messages_to_prompt: How messages are put for it; None leaves it to its chat template.
    """

    generator: Generator
    messages_to_prompt: Callable[[Sequence[ChatMessage]], str] | None

    @classmethod
    def of(cls, engine: XL3M, messages_to_prompt: Callable[[Sequence[ChatMessage]], str] | None) -> OwnReader:
        """The engine's reader.

        Raises:
            SettingError: It has none.
        """
        if engine.reader is None:
            raise SettingError("This engine has no reader; pass llm= with a model that answers, or another engine.")
        return cls(engine.reader, messages_to_prompt)

    @property
    def window(self) -> int:
        """Tokens that it reads and writes."""
        return self.generator.window

    @property
    def is_chat(self) -> bool:
        """Whether it expects messages."""
        return bool(getattr(getattr(self.generator, "hf_tokenizer", None), "chat_template", None))

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return self.generator.count(text)

    def count_prompt(self, prompt: str) -> int:
        """Tokens of a prompt, with what is put around it."""
        return self.generator.count_prompt(prompt)

    def count_turns(self, turns: Sequence[Turn], texts: Sequence[str | None]) -> int:
        """Tokens of a conversation with these texts; None leaves a turn out."""
        return self.count_prompt(self._render(turns, texts))

    def as_message(self, prompt: str) -> str:
        """A prompt as one user message, where the model expects messages."""
        return self.generator.render([("user", prompt)]) if self.is_chat else prompt

    def _render(self, turns: Sequence[Turn], texts: Sequence[str | None]) -> str:
        said = [(turn.role, text) for turn, text in zip(turns, texts, strict=True) if text is not None]
        if self.messages_to_prompt is None:
            return self.generator.render(said)
        return self.messages_to_prompt([ChatMessage(role=role, content=text) for role, text in said])

    def complete(self, fitting: FittingPrompt) -> CompletionResponse:
        """The answer."""
        return _last(self.stream_complete(fitting))

    def stream_complete(self, fitting: FittingPrompt) -> CompletionResponseGen:
        """The answer as it grows."""
        return self._write(fitting.wrapped, fitting, Cancellation())

    async def acomplete(self, fitting: FittingPrompt) -> CompletionResponse:
        """`complete` while the event loop goes on."""
        return await in_thread(lambda c: _last(self._write(fitting.wrapped, fitting, c)))

    async def astream_complete(self, fitting: FittingPrompt) -> CompletionResponseAsyncGen:
        """`stream_complete` while the event loop goes on."""
        return _streamed(lambda c: self._write(fitting.wrapped, fitting, c))

    def chat(self, fitting: FittingChat) -> ChatResponse:
        """The answer."""
        return _last(self.stream_chat(fitting))

    def stream_chat(self, fitting: FittingChat) -> ChatResponseGen:
        """The answer as it grows."""
        return self._say(fitting, Cancellation())

    async def achat(self, fitting: FittingChat) -> ChatResponse:
        """`chat` while the event loop goes on."""
        return await in_thread(lambda c: _last(self._say(fitting, c)))

    async def astream_chat(self, fitting: FittingChat) -> ChatResponseAsyncGen:
        """`stream_chat` while the event loop goes on."""
        return _streamed(lambda c: self._say(fitting, c))

    def _say(self, fitting: FittingChat, cancellation: Cancellation) -> ChatResponseGen:
        prompt = self._render(turns_of(fitting.messages), fitting.texts)
        for response in self._write(prompt, fitting, cancellation):
            # What is known about the answer stays out of the message, which goes to memory.
            message = ChatMessage(role=MessageRole.ASSISTANT, content=response.text)
            yield ChatResponse(message=message, delta=response.delta, raw=fitting.info, additional_kwargs=fitting.info)

    def _write(self, prompt: str, fitting: Fitting, cancellation: Cancellation) -> CompletionResponseGen:
        """The answer as it grows; at least one response, without leading whitespace."""
        pieces = self.generator.complete(prompt, max_new_tokens=fitting.answer, **fitting.options)
        known: dict[str, Any] = {"raw": fitting.info, "additional_kwargs": fitting.info}
        text = ""
        try:
            for piece in pieces:
                if cancellation.cancelled:
                    raise asyncio.CancelledError
                delta = piece if text else piece.lstrip()
                text += delta
                if delta:
                    yield CompletionResponse(text=text, delta=delta, **known)
        finally:
            getattr(pieces, "close", lambda: None)()
        if not text:
            yield CompletionResponse(text="", delta="", **known)


def _last(responses: Iterator[Response]) -> Response:
    *_, last = responses
    return last.model_copy(update={"delta": None})


def _streamed(work: Callable[[Cancellation], Iterator[Response]]) -> AsyncGenerator[Response, None]:
    # What `stream_in_thread` gives is an async generator, and the callbacks of LlamaIndex look for one.
    return cast(AsyncGenerator[Response, None], stream_in_thread(work))


# ---------------------------------------------------------------------------------------------- a wrapped model
@dataclass(frozen=True, slots=True)
class WrappedReader:
    """Any LlamaIndex LLM.

    Attributes:
        llm: It.
        reader_window: Tokens that it reads and writes, as the user says; None asks it.
        tokenizer: Text to its tokens; None takes LlamaIndex's global one.
    """

    llm: LLM
    reader_window: int | None
    tokenizer: Callable[[str], Sequence[Any]] | None

    @property
    def window(self) -> int:
        """Tokens that it reads and writes."""
        return window_of(self.llm, self.reader_window)

    @property
    def is_chat(self) -> bool:
        """Whether it expects messages."""
        return self.llm.metadata.is_chat_model

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len((get_tokenizer() if self.tokenizer is None else self.tokenizer)(text))

    def count_prompt(self, prompt: str) -> int:
        """Tokens of a prompt, with what is put around it."""
        return self.count(prompt) + MESSAGE_TOKENS

    def count_turns(self, turns: Sequence[Turn], texts: Sequence[str | None]) -> int:
        """Tokens of a conversation with these texts; None leaves a turn out."""
        return sum(self.count_prompt(text) for text in texts if text is not None)

    def as_message(self, prompt: str) -> str:
        """The prompt as it is: the model puts its own format around it."""
        return prompt

    def complete(self, fitting: FittingPrompt) -> CompletionResponse:
        """The answer."""
        return _informed(self.llm.complete(fitting.text, formatted=fitting.formatted, **fitting.options), fitting.info)

    def stream_complete(self, fitting: FittingPrompt) -> CompletionResponseGen:
        """The answer as it grows."""
        responses = self.llm.stream_complete(fitting.text, formatted=fitting.formatted, **fitting.options)
        return (_informed(response, fitting.info) for response in responses)

    async def acomplete(self, fitting: FittingPrompt) -> CompletionResponse:
        """`complete` while the event loop goes on."""
        response = await self.llm.acomplete(fitting.text, formatted=fitting.formatted, **fitting.options)
        return _informed(response, fitting.info)

    async def astream_complete(self, fitting: FittingPrompt) -> CompletionResponseAsyncGen:
        """`stream_complete` while the event loop goes on."""
        responses = await self.llm.astream_complete(fitting.text, formatted=fitting.formatted, **fitting.options)
        return (_informed(response, fitting.info) async for response in responses)

    def chat(self, fitting: FittingChat) -> ChatResponse:
        """The answer."""
        return _informed(self.llm.chat(self._messages(fitting), **fitting.options), fitting.info)

    def stream_chat(self, fitting: FittingChat) -> ChatResponseGen:
        """The answer as it grows."""
        responses = self.llm.stream_chat(self._messages(fitting), **fitting.options)
        return (_informed(response, fitting.info) for response in responses)

    async def achat(self, fitting: FittingChat) -> ChatResponse:
        """`chat` while the event loop goes on."""
        return _informed(await self.llm.achat(self._messages(fitting), **fitting.options), fitting.info)

    async def astream_chat(self, fitting: FittingChat) -> ChatResponseAsyncGen:
        """`stream_chat` while the event loop goes on."""
        responses = await self.llm.astream_chat(self._messages(fitting), **fitting.options)
        return (_informed(response, fitting.info) async for response in responses)

    def _messages(self, fitting: FittingChat) -> list[ChatMessage]:
        return with_texts(fitting.messages, fitting.texts)


def _informed(response: Response, info: Mapping[str, Any]) -> Response:
    """A copy of a wrapped model's response that says what was read."""
    return response.model_copy(update={"additional_kwargs": {**response.additional_kwargs, **info}})
