"""A prompt is taken apart into head, context and tail, whatever it looks like."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xl3m_integrations.errors import InputError
from xl3m_integrations.splitting import question_of, split_prompt


def words(text: str) -> int:
    return len(text.split())


PARAGRAPH = "one two three four five six seven eight nine ten. " * 20


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet=st.sampled_from("ab .\n?é🙂"), max_size=400), st.integers(1, 30), st.integers(0, 30))
def test_the_parts_are_the_prompt(prompt: str, tail: int, head: int) -> None:
    parts = split_prompt(prompt, words, head_tokens=head, tail_tokens=tail)
    assert parts.head + parts.context + parts.tail == prompt


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet=st.sampled_from("ab .\n?"), min_size=200, max_size=600), st.integers(2, 20))
def test_head_and_tail_keep_to_their_limits(prompt: str, tokens: int) -> None:
    parts = split_prompt(prompt, words, head_tokens=tokens, tail_tokens=tokens)
    assert words(parts.head) <= tokens
    assert words(parts.tail) <= 3 * tokens + 1  # a boundary may take in the end of one more word


def test_the_tail_is_taken_back_to_its_paragraph() -> None:
    prompt = f"{PARAGRAPH}\n\nQuestion: where is the key kept these days?\nAnswer:"
    parts = split_prompt(prompt, words, head_tokens=10, tail_tokens=4)
    assert parts.tail == "\n\nQuestion: where is the key kept these days?\nAnswer:"
    assert parts.question == "where is the key kept these days?"


def test_a_short_first_paragraph_is_instructions_and_a_long_one_is_context() -> None:
    tail = "\n\nWhere is the key?"
    short = split_prompt(f"Answer briefly.\n\n{PARAGRAPH}{tail}", words, head_tokens=10, tail_tokens=4)
    assert short.head == "Answer briefly.\n\n"
    assert split_prompt(PARAGRAPH * 2 + tail, words, head_tokens=10, tail_tokens=4).head == ""


def test_the_given_question_marks_the_tail_by_its_last_occurrence() -> None:
    question = "Where is the key?"
    prompt = f"{question}\n\n{PARAGRAPH}\n\nSo, {question} Say one word."
    parts = split_prompt(prompt, words, head_tokens=10, tail_tokens=2, question=question)
    assert parts.tail == f"\n\nSo, {question} Say one word." and parts.question == question


def test_short_paragraphs_at_the_beginning_are_instructions() -> None:
    prompt = f"You help.\n\nRules: answer in French.\n\n{PARAGRAPH}\n\nWhere is the key?"
    parts = split_prompt(prompt, words, head_tokens=10, tail_tokens=4)
    assert parts.head == "You help.\n\nRules: answer in French.\n\n"
    assert split_prompt(prompt, words, head_tokens=3, tail_tokens=4).head == "You help.\n\n"


SCHEMA = "\n\nWrite JSON.\n\n" + '{"type": "object"} ' * 20


def test_a_labelled_question_is_found_before_what_says_how_to_answer_it() -> None:
    prompt = f"{PARAGRAPH}\n\nQuestion: Where is the key?{SCHEMA}"
    parts = split_prompt(prompt, words, head_tokens=10, tail_tokens=4, label_tokens=100)
    assert parts.question == "Where is the key?"
    assert parts.tail == f"\n\nQuestion: Where is the key?{SCHEMA}"[1:] and parts.context == f"{PARAGRAPH}\n"
    assert "Where" not in split_prompt(prompt, words, head_tokens=10, tail_tokens=4, label_tokens=20).tail


@pytest.mark.parametrize("end", ["Where is the key?", "Tell me where the key is."])
def test_a_question_that_the_text_itself_answers_is_not_the_question(end: str) -> None:
    prompt = f"{PARAGRAPH}\n\nQuestion: Who are you?\nAnswer: A guide.\n\n{end}"
    parts = split_prompt(prompt, words, head_tokens=10, tail_tokens=3, label_tokens=100)
    assert parts.question == end


@pytest.mark.parametrize("prompt", ["no delimiter", "a|b|c|d"])
def test_a_delimiter_stands_once_or_twice(prompt: str) -> None:
    with pytest.raises(InputError, match="once"):
        split_prompt(prompt, words, head_tokens=9, tail_tokens=9, delimiter="|")


@pytest.mark.parametrize("prompt", [f"Be brief.\n\n{PARAGRAPH}|Where?", f"Be brief.|{PARAGRAPH}|Where?"])
def test_instructions_before_a_delimiter_and_where_the_context_begins(prompt: str) -> None:
    parts = split_prompt(prompt, words, head_tokens=9, tail_tokens=9, delimiter="|")
    assert parts.head.strip() == "Be brief." and (parts.tail, parts.question) == ("Where?", "Where?")
    assert prompt[parts.start :].startswith(parts.context)


@pytest.mark.parametrize(
    ("tail", "question"),
    [
        ("\n\nQuestion: What is it?\nHelpful Answer:", "What is it?"),
        ("\nGiven the context, answer the query.\nQuery: What is it?\nAnswer: ", "What is it?"),
        ("What is it?", "What is it?"),
        ("Tell me. What is it?\n\n", "Tell me. What is it?"),
        ("Q: What is it?\nA:", "What is it?"),
        ("Answer:", "Answer:"),
    ],
)
def test_the_plain_question_is_found_in_the_tail(tail: str, question: str) -> None:
    assert question_of(tail) == question
