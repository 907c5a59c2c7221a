"""The LlamaIndex LLM: what fits is passed as it is, what does not is cut, and the loop is never blocked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CompletionResponseGen,
    ImageBlock,
    LLMMetadata,
    MessageRole,
    TextBlock,
)
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate, SelectorPromptTemplate
from llama_index.core.prompts.utils import is_chat_model
from pydantic import Field, ValidationError

from xl3m_integrations import XL3M, InputError, SettingError
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.llama_index import XL3MLLM

QUERY = "What is the pin of the blue locker?"
FACT = "The pin of the blue locker is 7781."
RAIN = "It rained again, and the ferry left on time. "
LONG = RAIN * 40 + FACT + " " + RAIN * 40
PROMPT = f"{LONG}\n\nQuestion: {QUERY}"
TEMPLATE = PromptTemplate("Use this:\n{context_str}\nQuery: {query_str}\nAnswer: ")
MESSAGES = [
    ChatMessage(role="system", content="Be brief."),
    ChatMessage(role="user", content=f"{LONG}\n\n{QUERY}"),
]


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


@pytest.fixture
def llm(xl3m: XL3M) -> XL3MLLM:
    return XL3MLLM(xl3m=xl3m, max_new_tokens=6)


@pytest.fixture
def read(xl3m: XL3M, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the own model is given to complete."""
    seen: list[tuple[str, dict[str, Any]]] = []
    complete = TransformersBackend.complete

    def spy(self: Any, prompt: str, **options: Any) -> Any:
        seen.append((prompt, options))
        return complete(self, prompt, **options)

    monkeypatch.setattr(TransformersBackend, "complete", spy)
    return seen


# ---------------------------------------------------------------------------------------------- completing
def test_a_prompt_that_fits_is_passed_as_it_is(llm: XL3MLLM, read: list[Any]) -> None:
    response = llm.complete("Hello there.", formatted=True)
    assert read[0][0] == "Hello there."
    assert "xl3m_spans" not in response.additional_kwargs
    llm.complete("Hello there.")
    assert read[1][0] == llm.engine.reader.render([("user", "Hello there.")])  # type: ignore[union-attr]


def test_of_a_longer_prompt_the_question_stays_and_the_response_says_what_was_read(
    llm: XL3MLLM, read: list[Any]
) -> None:
    response = llm.complete(PROMPT)
    ((prompt, _),) = read
    assert QUERY in prompt and len(prompt) < len(PROMPT)
    known = response.additional_kwargs
    assert response.raw == known
    assert known["prompt_tokens"] == llm._count_prompt(prompt) <= llm.engine.window - 6
    assert known["xl3m_scores"] and all(PROMPT[start:end] in prompt for start, end in known["xl3m_spans"])


def test_streamed_pieces_joined_are_the_completion(llm: XL3MLLM) -> None:
    whole = llm.complete(PROMPT)
    pieces = list(llm.stream_complete(PROMPT))
    assert "".join(piece.delta or "" for piece in pieces) == whole.text == pieces[-1].text
    assert pieces[-1].additional_kwargs == whole.additional_kwargs


async def test_async_methods_give_the_same(llm: XL3MLLM) -> None:
    whole, chatted = llm.complete(PROMPT), llm.chat(MESSAGES)
    assert await llm.acomplete(PROMPT) == whole
    assert [piece async for piece in await llm.astream_complete(PROMPT)] == list(llm.stream_complete(PROMPT))
    assert await llm.achat(MESSAGES) == chatted
    assert [piece async for piece in await llm.astream_chat(MESSAGES)] == list(llm.stream_chat(MESSAGES))


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
    ticks, done = 0, asyncio.Event()

    async def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await CALLS[call](llm)
    done.set()
    await ticking
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
    task = asyncio.ensure_future(CALLS[call](llm))
    assert await asyncio.to_thread(started.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(stopped.wait, 60)


async def test_leaving_a_stream_early_closes_the_readers(xl3m: XL3M, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()

    def endless(self: Any, prompt: str, **options: Any) -> Any:
        try:
            while True:
                yield "rain "
        finally:
            closed.set()

    monkeypatch.setattr(TransformersBackend, "complete", endless)
    llm = XL3MLLM(xl3m=xl3m)
    for _ in llm.stream_complete("Hello"):
        break
    assert closed.is_set()
    closed.clear()
    stream = await llm.astream_complete("Hello")
    async for _ in stream:
        break
    del _
    await stream.aclose()
    del stream
    assert await asyncio.to_thread(closed.wait, 60)


def test_sixteen_threads_give_the_answers_of_one(llm: XL3MLLM) -> None:
    prompts = [
        f"{RAIN * 30}The pin of locker {n} is {n}{n}. {RAIN * 35}\n\nWhat is the pin of locker {n}?"
        for n in range(10, 26)
    ]
    serial = [llm.complete(prompt, max_new_tokens=3) for prompt in prompts]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda prompt: llm.complete(prompt, max_new_tokens=3), prompts)) == serial


# ---------------------------------------------------------------------------------------------- call arguments
def test_call_arguments_overrule_the_fields(llm: XL3MLLM, read: list[Any]) -> None:
    llm.complete("Hello", max_tokens=2)
    llm.complete("Hello", max_new_tokens=3, temperature=0.5, stop="x", repetition_penalty=1.1)
    llm.complete("Hello", temperature=0.0, stop=["a", "b"])
    options = [options for _, options in read]
    assert options[0] == {"max_new_tokens": 2, "stop": ()}
    sampled = {"do_sample": True, "temperature": 0.5, "repetition_penalty": 1.1}
    assert options[1] == {"max_new_tokens": 3, "stop": ("x",), **sampled}
    assert options[2] == {"max_new_tokens": 6, "stop": ("a", "b"), "do_sample": False}


def test_fields_reach_the_reader_and_a_call_overrules_them(xl3m: XL3M, read: list[Any]) -> None:
    llm = XL3MLLM(xl3m=xl3m, temperature=0.7, reader_options={"top_p": 0.9}, max_new_tokens=2)
    llm.complete("Hello")
    llm.complete("Hello", temperature=0)
    assert read[0][1] == {"max_new_tokens": 2, "stop": (), "do_sample": True, "temperature": 0.7, "top_p": 0.9}
    assert read[1][1]["do_sample"] is False


def test_the_answer_ends_at_a_stop_string(llm: XL3MLLM) -> None:
    whole = llm.complete(PROMPT).text
    assert len(whole) > 1
    assert llm.complete(PROMPT, stop=[whole[1]]).text == whole[: whole.index(whole[1])]


def test_question_delimiter_and_selection_may_be_given_in_a_call(xl3m: XL3M, read: list[Any]) -> None:
    llm = XL3MLLM(xl3m=xl3m, max_new_tokens=2, token_budget=200)
    llm.complete(LONG, question=QUERY)
    assert QUERY in read[-1][0]
    response = llm.complete(f"{LONG}#####Say it: {QUERY}", delimiter="#####", top_k=1)
    assert "#####" not in read[-1][0] and f"Say it: {QUERY}" in read[-1][0]
    assert len(response.additional_kwargs["xl3m_spans"]) == 1
    with pytest.raises(InputError, match="delimiter"):
        llm.complete(PROMPT, delimiter="#####")


# ---------------------------------------------------------------------------------------------- conversations
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


# ---------------------------------------------------------------------------------------------- templates
def test_predict_cuts_the_context_and_nothing_else(llm: XL3MLLM, read: list[Any]) -> None:
    llm.predict(TEMPLATE, context_str=LONG, query_str=QUERY)
    ((prompt, _),) = read
    around = llm.engine.reader.render([("user", TEMPLATE.format(context_str="\n", query_str=QUERY))])  # type: ignore[union-attr]
    head, tail = around.split("\n\n\n")
    assert head in prompt and tail in prompt and FACT not in head + tail
    context = prompt[len(head) + 1 : -len(tail) - 1]
    assert all(excerpt in LONG for excerpt in context.split("\n\n"))
    assert llm._count_prompt(prompt) <= llm.engine.window - 6


def test_predict_passes_what_fits_as_it_is(llm: XL3MLLM, read: list[Any]) -> None:
    llm.predict(TEMPLATE, context_str=FACT, query_str=QUERY)
    text = TEMPLATE.format(context_str=FACT, query_str=QUERY)
    assert read[0][0] == llm.engine.reader.render([("user", text)])  # type: ignore[union-attr]


REFINE = PromptTemplate("Query: {query_str}\nSo far: {existing_answer}\nMore:\n{context_msg}\nBetter: ")


@pytest.mark.parametrize("form", ["refine", "partial", "selector", "chat", "mapped"])
def test_predict_finds_context_and_query_however_they_are_given(llm: XL3MLLM, read: list[Any], form: str) -> None:
    """A synthesizer puts the query into the template beforehand, in `compact` and `tree_summarize`."""
    chat = ChatPromptTemplate(
        [ChatMessage(role="system", content="{context_str}"), ChatMessage(role="user", content="{query_str}")]
    )
    prompt: Any
    prompt, arguments = {
        "refine": (REFINE, {"context_msg": LONG, "query_str": QUERY, "existing_answer": "Maybe 7."}),
        "partial": (TEMPLATE.partial_format(query_str=QUERY), {"context_str": LONG}),
        "selector": (
            SelectorPromptTemplate(TEMPLATE, [(is_chat_model, chat)]).partial_format(query_str=QUERY),
            {"context_str": LONG},
        ),
        "chat": (chat, {"context_str": LONG, "query_str": QUERY}),
        "mapped": (
            PromptTemplate("{c}\n{q}", template_var_mappings={"context_str": "c", "query_str": "q"}),
            {"context_str": LONG, "query_str": QUERY},
        ),
    }[form]
    llm.predict(prompt, **arguments)
    ((sent, _),) = read
    assert QUERY in sent and len(sent) < len(LONG) and llm._count_prompt(sent) <= llm.engine.window - 6
    assert form != "refine" or "So far: Maybe 7." in sent


async def test_predict_stream_and_their_async_twins_agree(llm: XL3MLLM) -> None:
    arguments = {"context_str": LONG, "query_str": QUERY}
    whole = llm.predict(TEMPLATE, **arguments)
    assert "".join(llm.stream(TEMPLATE, **arguments)) == whole
    assert await llm.apredict(TEMPLATE, **arguments) == whole
    assert "".join([piece async for piece in await llm.astream(TEMPLATE, **arguments)]) == whole


def test_a_template_without_context_is_fitted_as_a_prompt(llm: XL3MLLM, read: list[Any]) -> None:
    llm.predict(PromptTemplate("{text}\n\nQuestion: {ask}"), text=LONG, ask=QUERY)
    assert QUERY in read[0][0] and len(read[0][0]) < len(LONG)


def test_a_question_longer_than_the_window_is_refused(llm: XL3MLLM) -> None:
    with pytest.raises(InputError, match="reader's window"):
        llm.predict(TEMPLATE, context_str=LONG, query_str=RAIN * 100)
    with pytest.raises(InputError, match="window"):
        llm.complete(LONG, question=RAIN * 100)


# ---------------------------------------------------------------------------------------------- another reader
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
    assert XL3MLLM(xl3m=xl3m, llm=Recorder(window=window), reader_window=300)._reads == 300


# ---------------------------------------------------------------------------------------------- settings
def test_settings_that_cannot_be_meant_are_refused(xl3m: XL3M) -> None:
    for fields, message in (
        ({"max_new_tokens": 0}, "at least 1"),
        ({"max_new_tokens": 640}, "lower max_new_tokens"),
        ({"temperature": -1.0}, "negative"),
        ({"reader_window": 100}, "for llm="),
        ({"llm": Recorder(), "temperature": 0.5}, "own model"),
    ):
        with pytest.raises(SettingError, match=message):
            XL3MLLM(xl3m=xl3m, **fields)
    with pytest.raises(SettingError, match="no reader"):
        XL3MLLM(xl3m=XL3M(xl3m.scorer))
    with pytest.raises(ValidationError, match="topk"):
        XL3MLLM(xl3m=xl3m, topk=3)


def test_bad_call_arguments_are_refused(llm: XL3MLLM) -> None:
    with pytest.raises(SettingError, match="at least 1"):
        llm.complete("Hello", max_tokens=0)
    with pytest.raises(SettingError, match="empty string"):
        llm.complete("Hello", stop=[""])
    with pytest.raises(SettingError, match="negative"):
        llm.complete("Hello", temperature=-0.1)


def test_the_metadata_tell_a_synthesizer_to_send_everything_at_once(llm: XL3MLLM) -> None:
    metadata = llm.metadata
    assert metadata.context_window >= 10**8
    assert (metadata.num_output, metadata.is_chat_model, metadata.model_name) == (6, True, "xl3m-bundled")
    assert llm.class_name() == "XL3MLLM" and llm.to_dict()["class_name"] == "XL3MLLM"


def test_a_chat_memory_never_trims_unless_it_is_given_a_limit(llm: XL3MLLM) -> None:
    """The memory takes its limit from the window that is reported; the class's docstring says how to set it."""
    history = [ChatMessage(role="user", content=RAIN * 20) for _ in range(10)]
    untrimmed = ChatMemoryBuffer.from_defaults(chat_history=history, llm=llm)
    assert len(untrimmed.get()) == len(history)
    trimmed = ChatMemoryBuffer.from_defaults(chat_history=history, llm=llm, token_limit=1_000)
    assert 1 <= len(trimmed.get()) < len(history)
    assert "ChatMemoryBuffer.from_defaults(token_limit=" in (XL3MLLM.__doc__ or "")


def test_callbacks_hear_of_every_call(xl3m: XL3M) -> None:
    counter = TokenCountingHandler(tokenizer=lambda text: text.split())
    llm = XL3MLLM(xl3m=xl3m, max_new_tokens=4, callback_manager=CallbackManager([counter]))
    llm.complete("Hello there.")
    list(llm.stream_chat([ChatMessage(role="user", content="Hello there.")]))
    assert len(counter.llm_token_counts) == 2
