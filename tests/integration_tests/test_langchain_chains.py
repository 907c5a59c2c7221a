"""Real LangChain chains on the bundled model: the answer is in the middle of 100,000 tokens."""

from __future__ import annotations

import random

import pytest
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from xl3m_integrations import XL3M
from xl3m_integrations.bundled import corpus
from xl3m_integrations.demo import long_text
from xl3m_integrations.langchain import XL3MLLM, ChatXL3M, XL3MCompressor

pytestmark = pytest.mark.slow

SEED = 3


@pytest.fixture(scope="module")
def xl3m() -> XL3M:
    return XL3M.default()


@pytest.fixture(scope="module")
def fact() -> corpus.Fact:
    return corpus.register_fact(random.Random(SEED))


@pytest.fixture(scope="module")
def book(xl3m: XL3M, fact: corpus.Fact) -> str:
    text = long_text(xl3m, random.Random(SEED), [(0.5, fact)], 101_000)
    assert xl3m.scorer.tokenizer.count(text) >= 100_000
    return text


@pytest.fixture(scope="module")
def chapter(xl3m: XL3M, fact: corpus.Fact) -> str:
    """For what need not be as long as a book: thirty windows."""
    return long_text(xl3m, random.Random(SEED), [(0.5, fact)], 30 * xl3m.window)


PROMPT = PromptTemplate.from_template(
    "Use the following pieces of context to answer the question at the end.\n\n{context}\n\nQuestion: {question}\n"
    "Helpful Answer:"
)


async def test_a_long_document_chain_sync_async_streamed_and_batched(
    xl3m: XL3M, book: str, chapter: str, fact: corpus.Fact
) -> None:
    chain = PROMPT | XL3MLLM(xl3m=xl3m) | StrOutputParser() | str.strip
    assert chain.invoke({"context": book, "question": fact.question}) == fact.value
    inputs = {"context": chapter, "question": fact.question}
    assert await chain.ainvoke(inputs) == fact.value
    assert "".join([piece async for piece in chain.astream(inputs)]).strip() == fact.value
    assert chain.batch([inputs, inputs]) == [fact.value] * 2


def test_a_chat_chain(xl3m: XL3M, book: str, chapter: str, fact: corpus.Fact) -> None:
    prompt = ChatPromptTemplate([("system", "Answer from the text."), ("human", "{context}\n\nQuestion: {question}")])
    chain = prompt | ChatXL3M(xl3m=xl3m) | StrOutputParser()
    assert chain.invoke({"context": book, "question": fact.question}) == fact.value
    assert "".join(chain.stream({"context": chapter, "question": fact.question})).strip() == fact.value


def test_a_compressor_before_any_reader(xl3m: XL3M, book: str, fact: corpus.Fact) -> None:
    compressor = XL3MCompressor(xl3m=xl3m).as_runnable(query_key="question")
    read = RunnableLambda(lambda inputs: xl3m.answer(inputs["context"][0].page_content, inputs["question"]).text)
    chain = RunnablePassthrough.assign(context=compressor) | read
    assert chain.invoke({"documents": [Document(page_content=book)], "question": fact.question}) == fact.value
