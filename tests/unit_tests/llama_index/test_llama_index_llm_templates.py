"""The LlamaIndex LLM filling in templates: the context is cut, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from asking import LONG, TEMPLATE
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate, SelectorPromptTemplate
from llama_index.core.prompts.utils import is_chat_model
from lockers import FACT, QUERY, RAIN

from xl3m_integrations import InputError, XL3MError
from xl3m_integrations.llama_index import XL3MLLM


def test_predict_cuts_the_context_and_nothing_else(llm: XL3MLLM, read: list[Any]) -> None:
    llm.predict(TEMPLATE, context_str=LONG, query_str=QUERY)
    ((prompt, _),) = read
    around = llm.engine.reader.render([("user", TEMPLATE.format(context_str="\n", query_str=QUERY))])  # type: ignore[union-attr]
    head, tail = around.split("\n\n\n")
    assert head in prompt and tail in prompt and FACT not in head + tail
    context = prompt[len(head) + 1 : -len(tail) - 1]
    assert all(excerpt in LONG for excerpt in context.split("\n\n"))
    assert llm._reader.count_prompt(prompt) <= llm.engine.window - 6


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
    assert QUERY in sent and len(sent) < len(LONG) and llm._reader.count_prompt(sent) <= llm.engine.window - 6
    assert form != "refine" or "So far: Maybe 7." in sent


def test_a_template_without_context_is_fitted_as_a_prompt(llm: XL3MLLM, read: list[Any]) -> None:
    llm.predict(PromptTemplate("{text}\n\nQuestion: {ask}"), text=LONG, ask=QUERY)
    assert QUERY in read[0][0] and len(read[0][0]) < len(LONG)


async def test_a_question_longer_than_the_window_is_refused_so_that_a_synthesizer_hears_of_it(llm: XL3MLLM) -> None:
    """LlamaIndex's turn a ValueError into an empty response."""
    arguments = {"context_str": LONG, "query_str": RAIN * 100}
    with pytest.raises(XL3MError, match="reader's window") as refused:
        llm.predict(TEMPLATE, **arguments)
    assert not isinstance(refused.value, ValueError) and isinstance(refused.value.__cause__, InputError)
    with pytest.raises(XL3MError, match="reader's window"):
        llm.stream(TEMPLATE, **arguments)
    for waits in (llm.apredict(TEMPLATE, **arguments), llm.astream(TEMPLATE, **arguments)):
        with pytest.raises(XL3MError, match="reader's window"):
            await waits


def test_a_question_longer_than_the_window_is_refused(llm: XL3MLLM) -> None:
    with pytest.raises(InputError, match="window"):
        llm.complete(LONG, question=RAIN * 100)
