"""The LlamaIndex LLM in conversations: roles, system message and question stay, long contents are cut."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from asking import MESSAGES, PROMPT
from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
)
from llama_index.core.memory import ChatMemoryBuffer
from lockers import FACT, QUERY, RAIN

from xl3m_integrations import XL3M, InputError
from xl3m_integrations.llama_index import XL3MLLM


def test_a_chat_keeps_system_message_and_question_verbatim_and_its_input_as_it_was(
    llm: XL3MLLM, read: list[Any]
) -> None:
    before = deepcopy(MESSAGES)
    response = llm.chat(MESSAGES)
    ((prompt, _),) = read
    assert "Be brief." in prompt and QUERY in prompt and len(prompt) < len(PROMPT)
    assert before == MESSAGES
    assert response.additional_kwargs["xl3m_spans"] and not response.message.additional_kwargs
    assert response.message.role == MessageRole.ASSISTANT


def test_a_short_chat_is_rendered_by_the_chat_template(llm: XL3MLLM, read: list[Any]) -> None:
    turns = [("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello."), ("user", "Bye.")]
    llm.chat([ChatMessage(role=role, content=text) for role, text in turns])
    assert read[0][0] == llm.engine.reader.render(turns)  # type: ignore[union-attr]


def test_streamed_chat_joined_is_the_chat(llm: XL3MLLM) -> None:
    pieces = list(llm.stream_chat(MESSAGES))
    assert "".join(piece.delta or "" for piece in pieces) == llm.chat(MESSAGES).message.content
    assert pieces[-1].message.content == llm.chat(MESSAGES).message.content


def test_a_function_of_the_users_own_renders_prompts_and_messages(xl3m: XL3M, read: list[Any]) -> None:
    llm = XL3MLLM(
        xl3m=xl3m,
        max_new_tokens=2,
        messages_to_prompt=lambda messages: "|".join(message.content or "" for message in messages),
        completion_to_prompt=lambda prompt: f"<{prompt}>",
    )
    llm.chat([ChatMessage(role="user", content="Hi."), ChatMessage(role="user", content="Bye.")])
    llm.complete("Hi.")
    llm.complete("Hi.", formatted=True)
    assert [prompt for prompt, _ in read] == ["Hi.|Bye.", "<Hi.>", "Hi."]


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_a_chat_without_a_user_message_is_refused(llm: XL3MLLM, role: str) -> None:
    with pytest.raises(InputError, match="no user turn"):
        llm.chat([ChatMessage(role=role, content="Hi.")])


def test_images_are_refused(llm: XL3MLLM) -> None:
    image = ChatMessage(
        role="user", blocks=[TextBlock(text="What is it?"), ImageBlock(url="https://example.org/a.png")]
    )
    with pytest.raises(InputError, match="image"):
        llm.chat([image])


def test_the_text_of_citable_blocks_is_read(llm: XL3MLLM, read: list[Any]) -> None:
    cited = [CitableBlock(title="Lockers", source="a.txt", content=FACT), TextBlock(text=QUERY)]
    llm.chat([ChatMessage(role="user", blocks=cited)])
    llm.chat([ChatMessage(role="user", content=f"{FACT}\n{QUERY}")])
    assert read[0][0] == read[1][0]


@pytest.mark.parametrize("inner", [ImageBlock(url="https://example.org/a.png"), DocumentBlock(data=b"x")])
def test_what_is_no_text_within_a_citable_block_is_refused(llm: XL3MLLM, inner: Any) -> None:
    cited = CitableBlock(title="Lockers", source="a.txt", content=[inner])
    with pytest.raises(InputError, match=inner.block_type):
        llm.chat([ChatMessage(role="user", blocks=[cited, TextBlock(text=QUERY)])])


def test_a_question_that_a_short_chat_does_not_hold_is_asked_after_it(llm: XL3MLLM, read: list[Any]) -> None:
    llm.chat([ChatMessage(role="user", content=FACT)], question=QUERY)
    llm.chat([ChatMessage(role="user", content=f"{FACT}\n\n{QUERY}")])
    assert read[0][0] == read[1][0]


def test_a_chat_memory_never_trims_unless_it_is_given_a_limit(llm: XL3MLLM) -> None:
    """The memory takes its limit from the window that is reported; the class's docstring says how to set it."""
    history = [ChatMessage(role="user", content=RAIN * 20) for _ in range(10)]
    untrimmed = ChatMemoryBuffer.from_defaults(chat_history=history, llm=llm)
    assert len(untrimmed.get()) == len(history)
    trimmed = ChatMemoryBuffer.from_defaults(chat_history=history, llm=llm, token_limit=1_000)
    assert 1 <= len(trimmed.get()) < len(history)
    assert "ChatMemoryBuffer.from_defaults(token_limit=" in (XL3MLLM.__doc__ or "")
