"""LangChain's messages: as turns to cut, with other texts, and as what a model of any kind gives back."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage

from xl3m_integrations.conversation import Role, Turn
from xl3m_integrations.errors import InputError

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def turn_of(message: BaseMessage) -> Turn:
    """A message as a turn: who speaks, and the text of what is said."""
    role = _ROLES.get(message.type) or _ROLES.get(str(getattr(message, "role", "")), "user")
    return Turn(role, str(message.text))


def require_text(message: BaseMessage) -> None:
    """Refuse what a model that reads text only would have to leave out.

    Raises:
        InputError: The message holds an image, say.
    """
    if isinstance(message.content, str):
        return
    other = {str(block.get("type")) for block in message.content if isinstance(block, dict)} - {"text"}
    other -= {"tool_use", "tool_call", "reasoning", "thinking"}
    if other:
        raise InputError(
            f"A {message.type} message holds content of type {', '.join(sorted(other))}; the local model reads "
            "text only. Take it out, or wrap a model that reads it with llm=."
        )


def must_stay(message: BaseMessage) -> bool:
    """Whether it must stay, whatever is left of its text: a tool call and its result belong together."""
    return isinstance(message, ToolMessage) or bool(getattr(message, "tool_calls", None))


def with_text(message: BaseMessage, text: str | None) -> BaseMessage:
    """The message with another text; what else it holds stays."""
    if text == str(message.text):
        return message
    if isinstance(message.content, str):
        return message.model_copy(update={"content": text or ""})
    others = [b for b in message.content if isinstance(b, dict) and b.get("type") != "text"]
    content: list[Any] = [{"type": "text", "text": text or ""}, *others]
    return message.model_copy(update={"content": content})


def as_message(output: Any) -> AIMessage:
    """What a LangChain model gave, as a message; a plain LLM gives a string."""
    return AIMessage(content=output) if isinstance(output, str) else output


def as_chunk(piece: Any) -> AIMessageChunk:
    """What a LangChain model streamed, as a chunk; one that cannot stream gives its whole message."""
    if isinstance(piece, str):
        return AIMessageChunk(content=piece)
    whole = {"type": "AIMessageChunk", "chunk_position": "last"}
    return piece if isinstance(piece, AIMessageChunk) else AIMessageChunk(**{**dict(piece), **whole})
