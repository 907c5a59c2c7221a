"""The LlamaIndex LLM with another LLM as its reader: what that is sent, and how much it can read."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pytest
from asking import LONG, MESSAGES, PROMPT, TEMPLATE
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.prompts import ChatPromptTemplate
from lockers import FACT, QUERY, RAIN
from pydantic import Field

from xl3m_integrations import XL3M, SettingError
from xl3m_integrations.llama_index import XL3MLLM


class Recorder(CustomLLM):
    """Answers with a constant and keeps what it was sent."""

    window: int = 400
    answer: int = 20
    chats: bool = False
    sent: list[Any] = Field(default_factory=list)
    options: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=self.window, num_output=self.answer, is_chat_model=self.chats)

    def _keep(self, what: Any, kwargs: dict[str, Any]) -> None:
        self.sent.append(what)
        self.options.append(kwargs)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self._keep(prompt, kwargs)
        return CompletionResponse(text="red blue", additional_kwargs={"own": 1})

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        self._keep(prompt, kwargs)
        texts = [("red", "red"), ("red blue", " blue")]
        return (CompletionResponse(text=text, delta=delta) for text, delta in texts)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        self._keep(list(messages), kwargs)
        return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content="red blue"))


def test_another_llm_reads_what_was_selected(xl3m: XL3M) -> None:
    reader = Recorder()
    llm = XL3MLLM(xl3m=xl3m, llm=reader)
    response = llm.complete(PROMPT)
    assert response.text == "red blue" and response.additional_kwargs["own"] == 1
    assert response.additional_kwargs["xl3m_spans"]
    (sent,) = reader.sent
    assert QUERY in sent and FACT in sent and xl3m.scorer.tokenizer.count(sent) <= reader.window - reader.answer
    assert [piece.delta for piece in llm.stream_complete(PROMPT)] == ["red", " blue"]


async def test_another_llm_is_asked_asynchronously_and_gets_unknown_arguments(xl3m: XL3M) -> None:
    reader = Recorder()
    llm = XL3MLLM(xl3m=xl3m, llm=reader, reader_options={"seed": 1})
    await llm.acomplete(PROMPT, max_tokens=10, stop=["x"], top_k=1, question=QUERY)
    async for _ in await llm.astream_complete("Hello"):
        pass
    await llm.achat(MESSAGES)
    async for _ in await llm.astream_chat([ChatMessage(role="user", content="Hello")]):
        pass
    assert reader.options[0] == {"seed": 1, "max_tokens": 10, "stop": ["x"]}
    assert len(reader.sent) == 4


def test_another_llm_gets_messages_with_what_was_selected(xl3m: XL3M) -> None:
    reader = Recorder(chats=True)
    llm = XL3MLLM(xl3m=xl3m, llm=reader)
    call = ChatMessage(role="tool", content=LONG, additional_kwargs={"tool_call_id": "1"})
    messages = [
        MESSAGES[0],
        ChatMessage(role="user", content="Look it up."),
        call,
        ChatMessage(role="user", content=QUERY),
    ]
    before = deepcopy(messages)
    llm.chat(messages)
    (sent,) = reader.sent
    assert [message.role for message in sent] == [message.role for message in messages]
    assert sent[0] == messages[0] and sent[3] == messages[3]
    assert FACT in sent[2].content and len(sent[2].content) < len(LONG)
    assert sent[2].additional_kwargs == {"tool_call_id": "1"}
    assert messages == before
    assert llm.predict(TEMPLATE, context_str=LONG, query_str=QUERY) == "red blue"
    assert llm.metadata.is_chat_model


def test_another_llm_gets_blocks_that_fit_as_they_are_and_the_text_of_longer_ones(xl3m: XL3M) -> None:
    reader = Recorder(chats=True)
    llm = XL3MLLM(xl3m=xl3m, llm=reader)
    short, long = (CitableBlock(title="Lockers", source="a.txt", content=text) for text in (FACT, LONG))
    call = ToolCallBlock(tool_name="look", tool_kwargs={})
    for cited in (short, long):
        said = [ChatMessage(role="assistant", blocks=[call]), ChatMessage(role="tool", blocks=[cited])]
        llm.chat([*said, ChatMessage(role="user", content=QUERY)])
    whole, cut = reader.sent
    assert whole[0].blocks == cut[0].blocks == [call] and whole[1].blocks == [short]
    (text,) = cut[1].blocks
    assert FACT in text.text and len(text.text) < len(LONG)


@pytest.mark.parametrize("chats", [False, True])
def test_another_llm_gets_a_chat_template_whose_messages_are_too_long_cut_message_by_message(
    xl3m: XL3M, chats: bool
) -> None:
    reader = Recorder(chats=chats)
    template = ChatPromptTemplate(
        [
            ChatMessage(role="system", content="Use this:\n{context_str}"),
            *(ChatMessage(role="user", content=f"Day {day}: {RAIN}") for day in range(40)),
            ChatMessage(role="user", content="{query_str}"),
        ]
    )
    XL3MLLM(xl3m=xl3m, llm=reader).predict(template, context_str=LONG, query_str=QUERY)
    (sent,) = reader.sent
    text = "\n".join(message.content for message in sent) if chats else sent
    assert FACT in text and QUERY in text and xl3m.scorer.tokenizer.count(text) <= reader.window - reader.answer
    assert "Use this:" in text and f"Day 39: {RAIN.strip()}" in text


def test_another_llms_own_format_is_kept(xl3m: XL3M) -> None:
    reader = Recorder(completion_to_prompt=lambda prompt: f"<s>{prompt}</s>", system_prompt="Be kind.")
    XL3MLLM(xl3m=xl3m, llm=reader).predict(TEMPLATE, context_str=FACT, query_str=QUERY)
    assert reader.sent[0] == f"Be kind.\n\n<s>{TEMPLATE.format(context_str=FACT, query_str=QUERY)}</s>"


def test_the_readers_tokens_are_counted_with_the_tokenizer_that_is_given(xl3m: XL3M) -> None:
    reader = Recorder()
    XL3MLLM(xl3m=xl3m, llm=reader, reader_window=2_000, reader_tokenizer=list).complete(PROMPT)
    assert len(reader.sent[0]) <= 2_000 - reader.answer


@pytest.mark.parametrize("window", [0, -1, 10**8, 10**9])
def test_a_reader_without_a_known_window_is_refused(xl3m: XL3M, window: int) -> None:
    with pytest.raises(SettingError, match="reader_window="):
        XL3MLLM(xl3m=xl3m, llm=Recorder(window=window))
    assert XL3MLLM(xl3m=xl3m, llm=Recorder(window=window), reader_window=300)._reader.window == 300
