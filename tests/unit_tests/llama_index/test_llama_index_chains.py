"""Inside LlamaIndex: query engines, a chat engine, a workflow, an index. Right answers are asked for at the end."""

from __future__ import annotations

import random
from typing import Any

import pytest
from asking import LONG
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine, SimpleChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step
from lockers import FACT, QUERY, RAIN
from retrieving import Fixed

from xl3m_integrations import XL3M, XL3MError
from xl3m_integrations.llama_index import XL3MLLM, XL3MPostprocessor, XL3MRetriever

MODES = [ResponseMode.COMPACT, ResponseMode.REFINE, ResponseMode.TREE_SUMMARIZE]


@pytest.fixture
def llm(xl3m: XL3M) -> XL3MLLM:
    return XL3MLLM(xl3m=xl3m, max_new_tokens=8)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("streaming", [False, True])
async def test_in_a_query_engine(
    xl3m: XL3M, llm: XL3MLLM, read: list[Any], mode: ResponseMode, streaming: bool
) -> None:
    retriever = XL3MRetriever.from_texts([LONG], similarity_top_k=3, xl3m=xl3m)
    engine = RetrieverQueryEngine.from_args(
        retriever,
        llm=llm,
        response_mode=mode,
        streaming=streaming,
        node_postprocessors=[XL3MPostprocessor(xl3m=xl3m, top_k=2)],
    )
    response = engine.query(QUERY)
    text = str(response)
    found = response.source_nodes
    assert 1 <= len(found) <= 2 and all(node.node.metadata["xl3m_spans"] for node in found)
    assert all(QUERY in prompt for prompt, _ in read) and read
    assert len(read) == (len(found) if mode == ResponseMode.REFINE else 1)
    later = await engine.aquery(QUERY)
    assert [node.node.node_id for node in later.source_nodes] == [node.node.node_id for node in found]
    if not streaming:
        assert str(later) == text


@pytest.mark.parametrize("mode", [ResponseMode.COMPACT, ResponseMode.TREE_SUMMARIZE])
def test_nine_thousand_words_are_one_call(llm: XL3MLLM, read: list[Any], mode: ResponseMode) -> None:
    """With a context window of 3,900 they are four."""
    words = (RAIN * 500).split()
    nodes = [NodeWithScore(node=TextNode(text=" ".join(words[at : at + 900]))) for at in range(0, 4_500, 900)] * 2
    assert sum(len(node.node.get_content().split()) for node in nodes) == 9_000
    get_response_synthesizer(llm=llm, response_mode=mode).synthesize(QUERY, nodes=nodes)
    assert len(read) == 1 and QUERY in read[0][0]


def test_over_a_vector_store_index(xl3m: XL3M, llm: XL3MLLM, read: list[Any]) -> None:
    documents = [Document(text=LONG, metadata={"source": "book"})]
    index = VectorStoreIndex.from_documents(
        documents,
        embed_model=MockEmbedding(embed_dim=4),
        transformations=[SentenceSplitter(chunk_size=300, chunk_overlap=0)],
    )
    engine = index.as_query_engine(
        llm=llm, similarity_top_k=10, node_postprocessors=[XL3MPostprocessor(xl3m=xl3m, top_k=2)]
    )
    response = engine.query(QUERY)
    assert len(read) == 1
    for found in response.source_nodes:
        assert found.node.metadata["source"] == "book" and found.node.ref_doc_id == documents[0].node_id
        assert "xl3m_retrieval_score" in found.node.metadata
    assert "xl3m_" not in read[0][0]


async def test_in_chat_engines(xl3m: XL3M, llm: XL3MLLM, read: list[Any]) -> None:
    memory = ChatMemoryBuffer.from_defaults(token_limit=1_000)
    chat = SimpleChatEngine.from_defaults(llm=llm, memory=memory)
    first = chat.chat(f"{LONG}\n\n{QUERY}")
    assert QUERY in read[-1][0]
    again = await chat.achat("And the red one?")
    assert "And the red one?" in read[-1][0]
    assert [message.content for message in memory.get_all()][1::2] == [first.response, again.response]
    retriever = XL3MRetriever.from_texts([LONG], similarity_top_k=2, xl3m=xl3m)
    context = ContextChatEngine.from_defaults(
        retriever, llm=llm, memory=ChatMemoryBuffer.from_defaults(token_limit=1_000), system_prompt="Be brief."
    )
    response = context.chat(QUERY)
    assert response.source_nodes and QUERY in read[-1][0]
    assert "".join(context.stream_chat("And the red one?").response_gen)
    assert "And the red one?" in read[-1][0]


REPORT = f"Here is my report:\n\n{RAIN * 300}"
SMALL_TALK = ["It is a fine day, the ferry left on time, and we are all well and in a good mood."] * 20


@pytest.mark.parametrize("engine", [ContextChatEngine, CondensePlusContextChatEngine])
@pytest.mark.parametrize("turns", [[REPORT], SMALL_TALK], ids=["a pasted document", "many turns"])
async def test_a_conversation_about_a_context_goes_on_however_long_it_is(
    llm: XL3MLLM, read: list[Any], engine: Any, turns: list[str]
) -> None:
    history = [
        ChatMessage(role=role, content=text)
        for turn in turns
        for role, text in (("user", turn), ("assistant", "Good to know."))
    ]
    retriever = Fixed([NodeWithScore(node=TextNode(text=LONG))])

    def chat() -> Any:
        memory = ChatMemoryBuffer.from_defaults(chat_history=list(history), llm=llm)
        return engine.from_defaults(retriever, llm=llm, memory=memory)

    for question in (QUERY, f"{REPORT}\n\n{QUERY}"):
        assert "7781" in str(chat().chat(question))
        assert QUERY in read[-1][0] and FACT in read[-1][0]
    assert "7781" in "".join(chat().stream_chat(QUERY).response_gen)
    assert "7781" in str(await chat().achat(QUERY))


async def test_a_query_engine_tells_what_is_refused_instead_of_an_empty_response(llm: XL3MLLM) -> None:
    nodes = [NodeWithScore(node=TextNode(text=LONG))]
    template = PromptTemplate(f"{RAIN * 100}{{context_str}}{{query_str}}")
    for streaming in (False, True):
        synthesizer = get_response_synthesizer(llm=llm, text_qa_template=template, streaming=streaming)
        with pytest.raises(XL3MError, match="Shorten query or template"):
            str(synthesizer.synthesize(QUERY, nodes=nodes))
        with pytest.raises(XL3MError, match="Shorten query or template"):
            response: Any = await synthesizer.asynthesize(QUERY, nodes=nodes)
            [piece async for piece in response.async_response_gen()]


class Found(Event):
    nodes: list[NodeWithScore]


class Flow(Workflow):
    """Retrieve, rerank, answer; all of it async."""

    def __init__(self, xl3m: XL3M, llm: XL3MLLM) -> None:
        super().__init__(timeout=120)
        self.retriever = XL3MRetriever.from_texts([LONG], similarity_top_k=4, xl3m=xl3m)
        self.postprocessor = XL3MPostprocessor(xl3m=xl3m, top_k=2)
        self.llm = llm

    @step
    async def retrieve(self, ctx: Context, ev: StartEvent) -> Found:
        nodes = await self.retriever.aretrieve(ev.query)
        return Found(nodes=await self.postprocessor.apostprocess_nodes(nodes, query_str=ev.query))

    @step
    async def read(self, ctx: Context, ev: Found) -> StopEvent:
        text = "\n\n".join(node.node.get_content() for node in ev.nodes)
        response = await self.llm.achat([ChatMessage(role="user", content=f"{text}\n\nQuestion: {QUERY}")])
        return StopEvent(result=response.message.content)


async def test_in_a_workflow(xl3m: XL3M, llm: XL3MLLM, read: list[Any]) -> None:
    assert await Flow(xl3m, llm).run(query=QUERY)
    ((prompt, _),) = read
    assert QUERY in prompt and FACT in prompt


# ---------------------------------------------------------------------------------------------- right answers
NAMES = "Ada Ben Cleo Dan Eva Finn".split()
CASES = [
    ("The pin of the blue locker is 7781.", "What is the pin of the blue locker?", "7781"),
    ("The access code of the north gate is 4206.", "What is the access code of the north gate?", "4206"),
    ("The number of the grey safe is 9153.", "What is the number of the grey safe?", "9153"),
]


def book(fact: str, characters: int, seed: int = 3) -> str:
    """Plain sentences with the fact in the middle."""
    rng = random.Random(seed)
    places, deeds = ["market", "harbour", "mill"], ["bought bread", "met a friend", "looked at the sea", "sat down"]
    lines = [
        f"{rng.choice(NAMES)} went to the {rng.choice(places)} and {rng.choice(deeds)}."
        for _ in range(characters // 45)
    ]
    lines.insert(len(lines) // 2, fact)
    return " ".join(lines)


@pytest.mark.parametrize("fact, question, answer", CASES)
@pytest.mark.parametrize("mode", MODES)
async def test_the_query_engine_finds_the_answer(
    xl3m: XL3M, llm: XL3MLLM, mode: ResponseMode, fact: str, question: str, answer: str
) -> None:
    nodes = [NodeWithScore(node=TextNode(text=book(fact, 16_000)))]
    synthesizer = get_response_synthesizer(llm=llm, response_mode=mode)
    assert answer in str(synthesizer.synthesize(question, nodes=nodes))
    assert answer in str(await synthesizer.asynthesize(question, nodes=nodes))


@pytest.mark.parametrize("fact, question, answer", CASES)
async def test_completing_chatting_and_streaming_find_the_answer(
    llm: XL3MLLM, fact: str, question: str, answer: str
) -> None:
    text = book(fact, 16_000)
    messages = [ChatMessage(role="user", content=f"{text}\n\nQuestion: {question}")]
    assert answer in llm.complete(f"{text}\n\nQuestion: {question}").text
    assert answer in (await llm.achat(messages)).message.content
    assert answer in "".join([piece.delta or "" async for piece in await llm.astream_chat(messages)])


@pytest.mark.slow
@pytest.mark.parametrize("fact, question, answer", CASES[:1])
async def test_the_answer_in_the_middle_of_a_hundred_thousand_tokens(
    xl3m: XL3M, llm: XL3MLLM, fact: str, question: str, answer: str
) -> None:
    text = book(fact, 450_000)
    assert xl3m.scorer.tokenizer.count(text) > 100_000
    retriever = XL3MRetriever.from_texts([text], similarity_top_k=2, xl3m=xl3m)
    engine = RetrieverQueryEngine.from_args(retriever, llm=llm)
    assert answer in str(engine.query(question))
    assert answer in str(await engine.aquery(question))
