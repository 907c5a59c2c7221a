"""The LangChain LLM: what reaches the reader, and how it is called."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from event_loop import ticks_during
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForLLMRun
from langchain_core.language_models import FakeListChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.outputs import GenerationChunk
from lockers import FACT, QUERY, RAIN, rain_around_the_fact
from pydantic import ValidationError

from xl3m_integrations import XL3M, InputError, SettingError
from xl3m_integrations.langchain import XL3MLLM

HEAD = "Answer the question from the text.\n\n"
TAIL = f"\n\nQuestion: {QUERY}\nAnswer:"
LONG = HEAD + rain_around_the_fact(150) + TAIL
SHORT = f"{FACT} {TAIL}"


class Recorder(LLM):
    """Says what it was asked."""

    seen: list[str]
    n_ctx: int = 400

    @property
    def _llm_type(self) -> str:
        return "recorder"

    def _call(self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
        self.seen.append(prompt)
        return f"{len(prompt)} characters"


@pytest.fixture
def llm(xl3m: XL3M) -> XL3MLLM:
    return XL3MLLM(xl3m=xl3m, max_tokens=12)


def test_a_prompt_that_fits_reaches_the_reader_as_it_is(xl3m: XL3M) -> None:
    reader = Recorder(seen=[])
    XL3MLLM(xl3m=xl3m, llm=reader).invoke(SHORT)
    assert reader.seen == [SHORT]


def test_instructions_and_question_reach_the_reader_verbatim_and_the_context_is_cut(xl3m: XL3M) -> None:
    reader = Recorder(seen=[])
    XL3MLLM(xl3m=xl3m, llm=reader).invoke(LONG)
    (prompt,) = reader.seen
    assert prompt.startswith(HEAD) and prompt.endswith(TAIL)
    assert FACT in prompt
    assert len(prompt) < len(LONG) / 4


def test_the_cut_prompt_fits_the_readers_window(xl3m: XL3M) -> None:
    for window in (300, 400, 640):
        reader = Recorder(seen=[], n_ctx=window)
        llm = XL3MLLM(xl3m=xl3m, llm=reader, max_tokens=20)
        llm.invoke(LONG)
        assert (len(reader.seen[0].encode()) + 2) // 3 + 20 <= window


def test_spans_are_places_in_the_prompt(llm: XL3MLLM) -> None:
    info = llm.generate([LONG]).generations[0][0].generation_info
    assert info is not None and info["prompt_tokens"] <= llm.engine.window
    texts = [LONG[start:end] for start, end in info["xl3m_spans"]]
    assert any(FACT in text for text in texts)
    assert len(info["xl3m_scores"]) >= len(texts)


def test_a_question_given_at_call_time_is_what_the_scorer_is_asked(xl3m: XL3M) -> None:
    reader = Recorder(seen=[])
    llm = XL3MLLM(xl3m=xl3m, llm=reader, top_k=1)
    text = rain_around_the_fact(150)
    llm.invoke(text, question=QUERY)
    assert reader.seen[0].endswith(f"\n\n{QUERY}")
    assert FACT in reader.seen[0]


def test_a_delimiter_marks_the_context(xl3m: XL3M) -> None:
    reader = Recorder(seen=[])
    prompt = f"Be brief.<<>>{rain_around_the_fact(200, 0)}<<>>{QUERY} Say only the number."
    XL3MLLM(xl3m=xl3m, llm=reader, delimiter="<<>>").invoke(prompt)
    assert reader.seen[0].startswith("Be brief.") and reader.seen[0].endswith("Say only the number.")
    assert "<<>>" not in reader.seen[0] and FACT in reader.seen[0]


def test_a_delimiter_that_does_not_mark_anything_is_refused(xl3m: XL3M) -> None:
    with pytest.raises(InputError, match="0 times"):
        XL3MLLM(xl3m=xl3m, delimiter="<<>>").invoke(LONG)


def test_a_question_longer_than_the_window_is_refused(llm: XL3MLLM) -> None:
    with pytest.raises(InputError, match="leaves no room"):
        llm.invoke(RAIN * 500, question="Why " + "and why " * 800 + "?")


def test_a_reader_without_a_known_window_is_refused(xl3m: XL3M) -> None:
    with pytest.raises(SettingError, match="reader_window"):
        XL3MLLM(xl3m=xl3m, llm=FakeListChatModel(responses=["x"])).invoke("hello")
    assert XL3MLLM(xl3m=xl3m, llm=FakeListChatModel(responses=["x"]), reader_window=99).invoke("hello") == "x"


def test_streamed_is_the_same_as_invoked(llm: XL3MLLM) -> None:
    assert "".join(llm.stream(LONG)) == llm.invoke(LONG)


async def test_async_gives_the_same(llm: XL3MLLM) -> None:
    expected = llm.invoke(LONG)
    assert await llm.ainvoke(LONG) == expected
    assert "".join([piece async for piece in llm.astream(LONG)]) == expected


def test_a_batch_gives_the_same_as_one_by_one(llm: XL3MLLM) -> None:
    prompts = [LONG, SHORT, "The ferry", SHORT + " 7"]
    together = [generation[0].text for generation in llm.generate(prompts).generations]
    assert together == [llm.invoke(prompt) for prompt in prompts]


async def test_the_loop_stays_free(llm: XL3MLLM) -> None:
    async def stream() -> list[str]:
        return [piece async for piece in llm.astream(LONG)]

    for call in (llm.ainvoke(LONG), stream()):
        _, ticks = await ticks_during(call)
        assert ticks > 20


async def test_cancelling_a_stream_stops_the_model(llm: XL3MLLM, endless: threading.Event) -> None:
    async for _ in llm.astream("Once upon a time"):
        break
    assert await asyncio.to_thread(endless.wait, 60)


def test_a_stream_that_is_left_as_the_loop_ends_leaves_no_task_behind(
    llm: XL3MLLM, caplog: pytest.LogCaptureFixture
) -> None:
    """Shielded from the loop's end, one run in four said "Task was destroyed but it is pending!"."""

    async def leave() -> None:
        async for _ in llm.astream("The ferry left"):
            break

    gc.collect()  # what other tests have left is not meant
    caplog.clear()
    for _ in range(20):
        asyncio.run(leave())
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def test_stop_ends_the_answer_and_is_left_out(llm: XL3MLLM) -> None:
    whole = llm.invoke("The ferry left")
    assert len(whole.strip()) > 2
    stop = whole.strip()[1:3]
    cut = llm.invoke("The ferry left", stop=[stop])
    assert cut == whole[: whole.index(stop)]
    assert "".join(llm.stream("The ferry left", stop=[stop])) == cut


def test_stop_of_the_constructor_is_honoured(xl3m: XL3M, llm: XL3MLLM) -> None:
    stop = llm.invoke("The ferry left").strip()[1:3]
    assert stop not in XL3MLLM(xl3m=xl3m, max_tokens=12, stop=[stop]).invoke("The ferry left")


def test_tokens_are_counted_by_the_models_own_tokenizer(llm: XL3MLLM) -> None:
    assert llm.get_num_tokens("7781") == 4  # every digit is a token
    assert llm.get_num_tokens("") == 0


def test_call_settings_come_before_the_constructors(llm: XL3MLLM) -> None:
    assert llm.get_num_tokens(llm.invoke("The ferry left", max_tokens=2)) <= 2


def test_two_configurations_never_share_a_cache_entry(xl3m: XL3M) -> None:
    cache = InMemoryCache()
    reader = Recorder(seen=[])
    variants: list[dict[str, Any]] = [
        {}, {"top_k": 1}, {"measure": "entropy"}, {"max_tokens": 20}, {"temperature": 0.5}, {"stop": ["x"]},
        {"question_tokens": 20}, {"delimiter": "\n\nQ"}, {"token_budget": 200}, {"reader_window": 350},
    ]  # fmt: skip
    for variant in variants:
        XL3MLLM(xl3m=xl3m, llm=reader, cache=cache, **variant).invoke(SHORT)
    assert len(reader.seen) == len(variants)
    XL3MLLM(xl3m=xl3m, llm=reader, cache=cache).invoke(SHORT)
    assert len(reader.seen) == len(variants)


def test_tokens_are_reported_while_streaming(llm: XL3MLLM) -> None:
    tokens: list[str] = []

    class Ear(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, *, chunk: GenerationChunk | None = None, **kwargs: Any) -> None:
            tokens.append(token)

    written = "".join(llm.stream("The ferry left", config={"callbacks": [Ear()]}))
    assert "".join(tokens) == written


def test_many_threads_give_the_same_as_one(llm: XL3MLLM) -> None:
    prompts = [LONG.replace("7781", str(1000 + n)) for n in range(16)]
    serial = [llm.invoke(prompt) for prompt in prompts]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(llm.invoke, prompts)) == serial


def test_a_loaded_pipeline_is_reused_and_its_settings_count(xl3m: XL3M) -> None:
    backend: Any = xl3m.scorer

    class Pipeline:
        model, tokenizer = backend.model, backend.hf_tokenizer

    class HuggingFacePipeline:
        pipeline, pipeline_kwargs = Pipeline(), {"max_new_tokens": 3, "return_full_text": False}

    llm = XL3MLLM(llm=HuggingFacePipeline())
    assert llm.engine.scorer.model is backend.model  # type: ignore[attr-defined]
    assert llm.llm is None and llm.max_tokens == 3


@pytest.mark.parametrize(
    ("given", "call", "expected"),
    [
        ({"repetition_penalty": 1.5}, {}, {"do_sample": False, "repetition_penalty": 1.5}),
        ({"do_sample": True, "top_k": 5}, {}, {"do_sample": True, "top_k": 5}),
        ({"do_sample": True, "top_k": 5}, {"temperature": 0}, {"do_sample": False, "top_k": None}),
        ({"do_sample": True, "temperature": 0.5}, {}, {"do_sample": True, "temperature": 0.5}),
        ({"temperature": 0.5}, {}, {"do_sample": False}),
    ],
)
def test_a_pipelines_generation_settings_reach_its_model(
    xl3m: XL3M, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], call: dict[str, Any], expected: dict[str, Any]
) -> None:
    backend: Any = xl3m.scorer
    seen: dict[str, Any] = {}
    generate = type(backend.model).generate
    monkeypatch.setattr(type(backend.model), "generate", lambda *ids, **how: seen.update(how) or generate(*ids, **how))

    class Pipeline:
        model, tokenizer = backend.model, backend.hf_tokenizer

    class HuggingFacePipeline:
        pipeline, pipeline_kwargs = Pipeline(), {"max_new_tokens": 3, **given}

    XL3MLLM(llm=HuggingFacePipeline()).invoke("The ferry left", **call)
    assert expected.items() <= seen.items()


def test_a_model_with_retries_can_be_wrapped(xl3m: XL3M) -> None:
    reader = Recorder(seen=[])
    assert XL3MLLM(xl3m=xl3m, llm=reader.with_retry()).invoke(SHORT) == f"{len(SHORT)} characters"


def test_bound_settings_do_not_share_a_cache_entry(xl3m: XL3M) -> None:
    cache = InMemoryCache()
    reader = Recorder(seen=[])
    for style in ("a", "b", "a"):
        XL3MLLM(xl3m=xl3m, llm=reader.bind(style=style), cache=cache).invoke(SHORT)
    assert len(reader.seen) == 2


def test_the_timeout_is_an_error_not_a_cut_answer(xl3m: XL3M) -> None:
    with pytest.raises(TimeoutError, match="timeout"):
        XL3MLLM(xl3m=xl3m, timeout=1e-9, max_tokens=50).invoke("The ferry left")


@pytest.mark.parametrize("setting", [{"max_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"unknown": 1},
                                     {"reader_window": 5}, {"stop": [""]}])  # fmt: skip
def test_bad_settings_are_refused(xl3m: XL3M, setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        XL3MLLM(xl3m=xl3m, **setting)


@pytest.mark.parametrize(
    "setting",
    [
        {"stop": [""]}, {"max_tokens": 0}, {"max_tokens": -5}, {"max_new_tokens": 1.5},
        {"max_tokens": 5, "max_new_tokens": 7}, {"top_p": 5}, {"temperature": -1}, {"temperature": "hot"},
    ],
)  # fmt: skip
def test_bad_settings_of_a_call_are_refused(llm: XL3MLLM, setting: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(setting))):
        llm.invoke("The ferry left", **setting)


def test_one_string_stops_as_a_whole(llm: XL3MLLM) -> None:
    whole = llm.invoke("The ferry left")
    never_written: Any = "\ufffd" + whole  # though each of its letters is
    assert llm.invoke("The ferry left", stop=never_written) == whole


def test_sampling_follows_the_temperature(xl3m: XL3M) -> None:
    import torch

    llm = XL3MLLM(xl3m=xl3m, max_tokens=20, temperature=5.0)
    torch.manual_seed(1)
    first = llm.invoke("The")
    torch.manual_seed(2)
    assert llm.invoke("The") != first


def test_run_managers_are_accepted_directly(llm: XL3MLLM) -> None:
    assert llm._generate(["The ferry"], run_manager=CallbackManagerForLLMRun.get_noop_manager()).generations
