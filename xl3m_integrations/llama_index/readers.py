"""The model that answers, for LlamaIndex's LLM: how much it reads, and how messages and answers are put for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CitationBlock,
    CompletionResponse,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import LLM
from llama_index.core.utils import get_tokenizer

from xl3m_integrations.conversation import Role, Turn
from xl3m_integrations.errors import InputError, SettingError

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


def counter_of(tokenizer: Callable[[str], Sequence[Any]] | None) -> Callable[[str], int]:
    """Counts a wrapped model's tokens; with LlamaIndex's global tokenizer where none is given."""
    tokens = get_tokenizer() if tokenizer is None else tokenizer
    return lambda text: len(tokens(text))


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


def as_chat(response: CompletionResponse) -> ChatResponse:
    """A completion as an assistant's message. What is known about it stays out of the message, which goes to memory."""
    message = ChatMessage(role=MessageRole.ASSISTANT, content=response.text)
    return ChatResponse(
        message=message, delta=response.delta, raw=response.raw, additional_kwargs=response.additional_kwargs
    )


def informed_completion(response: CompletionResponse, info: Mapping[str, Any]) -> CompletionResponse:
    """A copy of a wrapped model's response that says what was read."""
    return response.model_copy(update={"additional_kwargs": {**response.additional_kwargs, **info}})


def informed_chat(response: ChatResponse, info: Mapping[str, Any]) -> ChatResponse:
    """A copy of a wrapped model's response that says what was read."""
    return response.model_copy(update={"additional_kwargs": {**response.additional_kwargs, **info}})
