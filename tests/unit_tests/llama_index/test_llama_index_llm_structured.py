"""The LlamaIndex LLM asked for objects: the question is the question, and the schema after it stays whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from asking import LONG, MESSAGES, TEMPLATE
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode
from lockers import FACT, QUERY, RAIN
from pydantic import BaseModel, Field
from retrieving import Fixed

from xl3m_integrations import XL3M, XL3MError
from xl3m_integrations.llama_index import XL3MLLM

JSON = '{"pin": 7781}'


class Pin(BaseModel):
    """What opens a locker."""

    pin: int


SCHEMA = PydanticOutputParser(output_cls=Pin).get_format_string()


class JsonLLM(CustomLLM):
    """Answers with an object and keeps what it was sent, as text."""

    chats: bool
    sent: list[str] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=500, num_output=20, is_chat_model=self.chats)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.sent.append(prompt)
        return CompletionResponse(text=JSON)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        self.sent.append(prompt)
        yield CompletionResponse(text=JSON, delta=JSON)

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        self.sent.append("\n".join(message.content or "" for message in messages))
        return ChatResponse(message=ChatMessage(role="assistant", content=JSON))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        yield self.chat(messages)


@pytest.fixture(params=[False, True], ids=["completes", "chats"])
def reader(request: pytest.FixtureRequest) -> JsonLLM:
    return JsonLLM(chats=request.param)


@pytest.fixture
def llm(xl3m: XL3M, reader: JsonLLM) -> XL3MLLM:
    return XL3MLLM(xl3m=xl3m, llm=reader)


def assert_whole(sent: Sequence[str], times: int = 1) -> None:
    """Each call got the fact, the question and, once, the schema."""
    assert len(sent) == times
    for text in sent:
        assert FACT in text and QUERY in text and len(text) < len(LONG)
        assert text.count(SCHEMA.strip()) == 1 == text.count("JSON schema")


async def test_a_template_is_answered_by_an_object(llm: XL3MLLM, reader: JsonLLM) -> None:
    arguments = {"context_str": LONG, "query_str": QUERY}
    assert llm.structured_predict(Pin, TEMPLATE, **arguments) == Pin(pin=7781)
    assert await llm.astructured_predict(Pin, TEMPLATE, **arguments) == Pin(pin=7781)
    assert [made.pin for made in llm.stream_structured_predict(Pin, TEMPLATE, **arguments)][-1] == 7781
    streamed = await llm.astream_structured_predict(Pin, TEMPLATE, **arguments)
    assert [made.pin async for made in streamed][-1] == 7781
    assert_whole(reader.sent, times=4)
    assert TEMPLATE.output_parser is None


def test_a_template_that_fits_is_passed_as_it_is(llm: XL3MLLM, reader: JsonLLM) -> None:
    llm.structured_predict(Pin, TEMPLATE, context_str=FACT, query_str=QUERY)
    (sent,) = reader.sent
    assert sent.strip() == (TEMPLATE.format(context_str=FACT, query_str=QUERY) + "\n\n" + SCHEMA).strip()


async def test_in_query_engines(llm: XL3MLLM, reader: JsonLLM) -> None:
    retriever = Fixed([NodeWithScore(node=TextNode(text=LONG))])
    for engine in (
        RetrieverQueryEngine.from_args(retriever, llm=llm.as_structured_llm(Pin)),
        RetrieverQueryEngine.from_args(retriever, llm=llm, output_cls=Pin),
    ):
        assert "7781" in str(engine.query(QUERY))
        assert "7781" in str(await engine.aquery(QUERY))
    assert_whole(reader.sent, times=4)


async def test_messages_are_answered_by_an_object(llm: XL3MLLM, reader: JsonLLM) -> None:
    structured = llm.as_structured_llm(Pin)
    assert structured.chat(MESSAGES).raw == Pin(pin=7781)
    assert (await structured.achat(MESSAGES)).raw == Pin(pin=7781)
    assert_whole(reader.sent, times=2)
    assert all("Be brief." in text for text in reader.sent)


def test_the_system_prompt_is_said_once(xl3m: XL3M, reader: JsonLLM) -> None:
    llm = XL3MLLM(xl3m=xl3m, llm=reader, system_prompt="Be kind.")
    llm.structured_predict(Pin, ChatPromptTemplate(MESSAGES[1:]))
    assert_whole(reader.sent)
    assert reader.sent[0].count("Be kind.") == int(reader.chats)  # LlamaIndex says it in a chat alone


def test_what_exceeds_the_window_with_the_schema_is_refused_so_that_a_synthesizer_hears_of_it(llm: XL3MLLM) -> None:
    with pytest.raises(XL3MError, match="window") as refused:
        llm.structured_predict(Pin, TEMPLATE, context_str=LONG, query_str=RAIN * 100)
    assert not isinstance(refused.value, ValueError)
