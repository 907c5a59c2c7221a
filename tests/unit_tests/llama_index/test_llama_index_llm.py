"""The LlamaIndex LLM: what fits is passed as it is, what does not is cut, and settings are honoured or refused."""

from __future__ import annotations

from typing import Any

import pytest
from asking import LONG, PROMPT
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import MockLLM
from lockers import FACT, QUERY
from pydantic import ValidationError

from xl3m_integrations import XL3M, InputError, SettingError
from xl3m_integrations.llama_index import XL3MLLM


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
    assert known["prompt_tokens"] == llm._reader.count_prompt(prompt) <= llm.engine.window - 6
    assert known["xl3m_scores"] and all(PROMPT[start:end] in prompt for start, end in known["xl3m_spans"])


def test_streamed_pieces_joined_are_the_completion(llm: XL3MLLM) -> None:
    whole = llm.complete(PROMPT)
    pieces = list(llm.stream_complete(PROMPT))
    assert "".join(piece.delta or "" for piece in pieces) == whole.text == pieces[-1].text
    assert pieces[-1].additional_kwargs == whole.additional_kwargs


def test_call_arguments_overrule_the_fields(llm: XL3MLLM, read: list[Any]) -> None:
    llm.complete("Hello", max_tokens=2)
    llm.complete("Hello", max_new_tokens=3, temperature=0.5, stop="x", repetition_penalty=1.1)
    llm.complete("Hello", temperature=0.0, stop=["a", "b"])
    options = [options for _, options in read]
    assert options[0] == {"max_new_tokens": 2, "stop": ()}
    sampled = {"temperature": 0.5, "repetition_penalty": 1.1}
    assert options[1] == {"max_new_tokens": 3, "stop": ("x",), **sampled}
    assert options[2] == {"max_new_tokens": 6, "stop": ("a", "b"), "temperature": 0.0}


def test_fields_reach_the_reader_and_a_call_overrules_them(xl3m: XL3M, read: list[Any]) -> None:
    llm = XL3MLLM(xl3m=xl3m, temperature=0.7, reader_options={"top_p": 0.9}, max_new_tokens=2)
    llm.complete("Hello")
    llm.complete("Hello", temperature=0)
    assert read[0][1] == {"max_new_tokens": 2, "stop": (), "temperature": 0.7, "top_p": 0.9}
    assert read[1][1]["temperature"] == 0


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


def test_a_question_that_a_short_prompt_does_not_hold_is_asked_after_it(llm: XL3MLLM, read: list[Any]) -> None:
    llm.complete(FACT, question=QUERY)
    llm.complete(f"{FACT}\n\n{QUERY}")
    llm.complete(f"{FACT}\n\n{QUERY}", question=QUERY)
    assert read[0][0] == read[1][0] == read[2][0] and QUERY in read[0][0]


def test_settings_that_cannot_be_meant_are_refused(xl3m: XL3M) -> None:
    for fields, message in (
        ({"max_new_tokens": 0}, "at least 1"),
        ({"max_new_tokens": 640}, "lower max_new_tokens"),
        ({"temperature": -1.0}, "negative"),
        ({"reader_window": 100}, "for llm="),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 2, "token_budget": 100}, "alternatives"),
        ({"measure": "foo"}, "Unknown measure"),
        ({"question_tokens": 0}, "question_tokens"),
        ({"llm": MockLLM(), "temperature": 0.5}, "own model"),
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
    with pytest.raises(SettingError, match="top_k"):
        llm.complete("Hello", top_k=0)


def test_the_metadata_tell_a_synthesizer_to_send_everything_at_once(llm: XL3MLLM) -> None:
    metadata = llm.metadata
    assert metadata.context_window >= 10**8
    assert (metadata.num_output, metadata.is_chat_model, metadata.model_name) == (6, True, "xl3m-bundled")
    assert llm.class_name() == "XL3MLLM" and llm.to_dict()["class_name"] == "XL3MLLM"


def test_callbacks_hear_of_every_call(xl3m: XL3M) -> None:
    counter = TokenCountingHandler(tokenizer=lambda text: text.split())
    llm = XL3MLLM(xl3m=xl3m, max_new_tokens=4, callback_manager=CallbackManager([counter]))
    llm.complete("Hello there.")
    list(llm.stream_chat([ChatMessage(role="user", content="Hello there.")]))
    assert len(counter.llm_token_counts) == 2
