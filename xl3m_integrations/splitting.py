"""A prompt that is too long -> head, context and tail: what to keep verbatim, and what to select from.

The paper's rule (arXiv 2405.17755, section 3): the last tokens of the prompt are the question. Here they are taken back
to the beginning of their paragraph, so that the question is whole; and a short first paragraph before the context is
taken for instructions. Both rules give way to a delimiter, or to the question itself, where the caller knows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from xl3m_integrations.errors import InputError

Count = Callable[[str], int]

_LABEL = re.compile(r"(?:^|\n)[^\S\n]*(?:user |human )?(?:question|query|input|q)[^\S\n]*:[^\S\n]*", re.IGNORECASE)
_ANSWER = re.compile(r"\n[^\n]{0,40}:\s*\Z")  # what asks for the answer: "Answer:", "Helpful Answer:", "A:", …


@dataclass(frozen=True, slots=True)
class SplitPrompt:
    """A prompt in three parts; `head + context + tail` is the prompt.

    Attributes:
        head: Instructions; reach the reader verbatim.
        context: The long part, of which a selection reaches the reader.
        tail: The question and what follows it; reaches the reader verbatim.
        question: The plain question, for the scorer.
    """

    head: str
    context: str
    tail: str
    question: str


def split_prompt(
    prompt: str,
    count: Count,
    *,
    head_tokens: int,
    tail_tokens: int,
    question: str | None = None,
    delimiter: str | None = None,
) -> SplitPrompt:
    """Take a prompt apart.

    Args:
        prompt: The whole prompt.
        count: Counts tokens.
        head_tokens: Length of the instructions, at most.
        tail_tokens: How many of the last tokens are the question, before they are taken back to their paragraph's
            start; the tail is at most three times as long.
        question: The question, if the caller knows it. Where the prompt holds it, the tail begins with its last
            occurrence's paragraph; else it is appended as the tail.
        delimiter: A string that stands between the parts: once between context and tail, or twice around the context.

    Raises:
        InputError: The delimiter does not stand in the prompt once or twice.
    """
    if delimiter is not None:
        return _by_delimiter(prompt, delimiter, question)
    if question is not None and question not in prompt:
        head = _head(prompt, count, head_tokens)
        return SplitPrompt(head, prompt[len(head) :], f"\n\n{question}", question)
    if question is not None:
        start = _paragraph_start(prompt, prompt.rindex(question), prompt.rindex(question) - 1_000)
    else:
        start = _last_tokens(prompt, count, tail_tokens)
    head = _head(prompt[:start], count, head_tokens)
    tail = prompt[start:]
    return SplitPrompt(head, prompt[len(head) : start], tail, question or question_of(tail))


def question_of(tail: str) -> str:
    """The plain question in the end of a prompt: without labels such as `Question:` and `Helpful Answer:`."""
    text = _ANSWER.sub("", "\n" + tail.rstrip()).strip() or tail.strip()
    labels = list(_LABEL.finditer("\n" + text))
    if labels:
        text = ("\n" + text)[labels[-1].end() :]
    return text.strip()


def _by_delimiter(prompt: str, delimiter: str, question: str | None) -> SplitPrompt:
    parts = prompt.split(delimiter)
    if len(parts) not in (2, 3):
        raise InputError(
            f"The delimiter {delimiter!r} stands in the prompt {len(parts) - 1} times; it must stand there once, "
            "between context and question, or twice, around the context."
        )
    head, context, tail = parts if len(parts) == 3 else ("", *parts)
    return SplitPrompt(head, context, tail, question or question_of(tail))


def _last_tokens(prompt: str, count: Count, tokens: int) -> int:
    """Where the tail begins: at a paragraph, else a line, a sentence or a word, no later than the last `tokens`."""
    cut = _longest_tail(prompt, count, tokens)
    floor = _longest_tail(prompt, count, 3 * tokens)
    return _paragraph_start(prompt, cut, floor)


def _longest_tail(prompt: str, count: Count, tokens: int) -> int:
    low, high = 0, len(prompt)  # the tail from `high` on fits, the one from `low` on may not
    low = max(0, high - 16 * tokens)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(prompt[middle:]) <= tokens else (middle, high)
    return low if count(prompt[low:]) <= tokens else high


def _paragraph_start(prompt: str, at: int, floor: int) -> int:
    """The nearest boundary from `floor` to `at`: of a paragraph, else a line, a sentence or a word."""
    floor = max(0, floor)
    for boundary in ("\n\n", "\n", ". ", " "):
        found = prompt.rfind(boundary, floor, at + len(boundary))
        if found >= 0:
            return found
    return 0 if floor == 0 else at


def _head(text: str, count: Count, tokens: int) -> str:
    """The first paragraph or lines, if something follows and they are short enough to be instructions."""
    for boundary in ("\n\n", "\n"):
        end = text.find(boundary)
        if end > 0 and text[end:].strip() and count(text[: end + len(boundary)]) <= tokens:
            return text[: end + len(boundary)]
    return ""
