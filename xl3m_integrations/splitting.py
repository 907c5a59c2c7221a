"""A prompt that is too long -> head, context and tail: what to keep verbatim, and what to select from.

The paper's rule (arXiv 2405.17755, section 3): the last tokens of the prompt are the question. Here they are taken back
to the beginning of their paragraph, so that the question is whole; where they ask nothing, but a label such as
`Question:` stands before them, they are taken back to that. The first paragraphs, as long as they are short, are taken
for instructions. These rules give way to a delimiter, or to the question itself, where the caller knows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from xl3m_integrations.errors import InputError

Count = Callable[[str], int]

_LABEL = re.compile(r"(?:^|\n)[^\S\n]*(?:user |human )?(?:question|query|input|q)[^\S\n]*:[^\S\n]*", re.IGNORECASE)
_ANSWERED = re.compile(r"\n[^\S\n]*(?:\w+ )?(?:answer|a)[^\S\n]*:[^\S\n]*\S", re.IGNORECASE)
_ANSWER = re.compile(r"\n[^\n]{0,40}:\s*\Z")  # what asks for the answer: "Answer:", "Helpful Answer:", "A:", …


@dataclass(frozen=True, slots=True)
class SplitPrompt:
    """A prompt in three parts; `head + context + tail` is the prompt, but for its delimiters.

    Attributes:
        head: Instructions; reach the reader verbatim.
        context: The long part, of which a selection reaches the reader.
        tail: The question and what follows it; reaches the reader verbatim.
        question: The plain question, for the scorer.
        start: Where in the prompt the context begins.
    """

    head: str
    context: str
    tail: str
    question: str
    start: int


def split_prompt(
    prompt: str,
    count: Count,
    *,
    head_tokens: int,
    tail_tokens: int,
    label_tokens: int | None = None,
    question: str | None = None,
    delimiter: str | None = None,
) -> SplitPrompt:
    """Take a prompt apart.

    Args:
        prompt: The whole prompt.
        count: Counts tokens.
        head_tokens: Length of the instructions, at most.
        tail_tokens: How many of the last tokens are the question, before they are taken back to their paragraph's
            start; the tail is at most three times as long, unless it is taken back to a label.
        label_tokens: How far from the end such a label may stand; None looks for it in the tail alone.
        question: The question, if the caller knows it; the prompt holds it, and the tail begins with its last
            occurrence's paragraph.
        delimiter: A string that stands between the parts: once between context and tail, or twice around the context.

    Raises:
        InputError: The delimiter does not stand in the prompt once or twice.
    """
    if delimiter is not None:
        return _by_delimiter(prompt, delimiter, question, lambda text: _head(text, count, head_tokens))
    if question is not None:
        at = prompt.rindex(question)
        start = _paragraph_start(prompt, at, at - 1_000)
    else:
        start = _last_tokens(prompt, count, tail_tokens)
        label = None if "?" in prompt[start:] else _last_label(prompt, count, label_tokens or 0)
        if label is not None and label.start() < start:
            start = label.start()
            question = prompt[label.end() :].strip().partition("\n\n")[0].rstrip()
    head = _head(prompt[:start], count, head_tokens)
    tail = prompt[start:]
    return SplitPrompt(head, prompt[len(head) : start], tail, question or question_of(tail), len(head))


def question_of(tail: str) -> str:
    """The plain question in the end of a prompt: without labels such as `Question:` and `Helpful Answer:`."""
    text = _ANSWER.sub("", "\n" + tail.rstrip()).strip() or tail.strip()
    labels = list(_LABEL.finditer("\n" + text))
    if labels:
        text = ("\n" + text)[labels[-1].end() :]
    return text.strip()


def _by_delimiter(prompt: str, delimiter: str, question: str | None, head_of: Callable[[str], str]) -> SplitPrompt:
    parts = prompt.split(delimiter)
    if len(parts) not in (2, 3):
        raise InputError(
            f"The delimiter {delimiter!r} stands in the prompt {len(parts) - 1} times; it must stand there once, "
            "between context and question, or twice, around the context."
        )
    tail = parts[-1]
    asked = question or question_of(tail)
    if len(parts) == 3:
        return SplitPrompt(parts[0], parts[1], tail, asked, len(parts[0]) + len(delimiter))
    head = head_of(parts[0])
    return SplitPrompt(head, parts[0][len(head) :], tail, asked, len(head))


def _last_label(prompt: str, count: Count, tokens: int) -> re.Match[str] | None:
    """The last label of a question within the last `tokens`, unless its answer follows: then it is the text's own."""
    floor = _longest_tail(prompt, count, tokens) if tokens else len(prompt)
    labels = list(_LABEL.finditer(prompt, floor))
    return labels[-1] if labels and not _ANSWERED.search(prompt, labels[-1].end()) else None


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
    """The first paragraphs, or the first line, if something follows and they are short enough to be instructions."""
    end = 0
    while (found := text.find("\n\n", end + 1)) > 0 and text[found:].strip() and count(text[: found + 2]) <= tokens:
        end = found + 2
    if end == 0 and (line := text.find("\n")) > 0 and text[line:].strip() and count(text[: line + 1]) <= tokens:
        end = line + 1
    return text[:end]
