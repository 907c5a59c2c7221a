"""A prompt of any length -> a prompt that a reader's window holds: head and tail verbatim, the context selected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typing_extensions import Unpack

from xl3m_integrations.choice import Choice
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import InputError
from xl3m_integrations.splitting import SplitPrompt, split_prompt
from xl3m_integrations.types import Certainty, KeyContext, ScoredSegment, Span

SEAM_TOKENS = 4  # where head, context and tail meet, tokens may come out differently than counted apart


@dataclass(frozen=True, slots=True)
class Window:
    """A reader's window.

    Attributes:
        tokens: How many tokens it reads and writes.
        answer: How many of them are left for the answer.
        count: Counts its tokens of a text.
    """

    tokens: int
    answer: int
    count: Callable[[str], int]

    @property
    def prompt(self) -> int:
        """Tokens that a prompt may have."""
        return self.tokens - self.answer


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A prompt that fits, and what of the original is in it.

    Attributes:
        prompt: What the reader reads.
        tokens: Its length in the reader's tokens.
        spans: Which characters of the original prompt's context are in it; None where the prompt fitted as it was.
        segments: The segments behind the spans; offsets count from the beginning of the context.
        question: What the scorer was asked; None where the prompt fitted as it was.
        certainty: See `KeyContext.certainty`.
    """

    prompt: str
    tokens: int
    spans: tuple[Span, ...] | None = None
    segments: tuple[ScoredSegment, ...] = ()
    question: str | None = None
    certainty: Certainty | None = None

    def info(self) -> dict[str, Any]:
        """Spans, scores, certainty and token count, as frameworks put them beside an answer."""
        kept = {"prompt_tokens": self.tokens}
        if self.spans is None:
            return kept
        scores = [segment.score for segment in self.segments]
        sure = self.certainty.info() if self.certainty else {}
        return {**kept, "xl3m_spans": [list(span) for span in self.spans], "xl3m_scores": scores, **sure}


def fit_prompt(
    xl3m: XL3M,
    prompt: str,
    window: Window,
    *,
    question: str | None = None,
    delimiter: str | None = None,
    question_tokens: int | None = None,
    **how: Unpack[Choice],
) -> FittedPrompt:
    """Select from the long part of a prompt until it fits.

    Args:
        xl3m: Scores the context's segments.
        prompt: The whole prompt.
        window: The reader's window.
        question: The question, if the caller knows it; it is appended where the prompt does not hold it.
        delimiter: See `split_prompt`.
        question_tokens: How many of the prompt's last tokens are the question, before they are taken back to their
            paragraph's start; None takes an eighth of the window, 64 at most.
        **how: See `Choice`.

    Raises:
        InputError: Head and question alone do not fit the window.
    """
    if delimiter is None:
        prompt = with_question(prompt, question)
    tokens = window.count(prompt)
    if tokens <= window.prompt:
        return FittedPrompt(prompt, tokens)
    tail_tokens = question_tokens or min(64, window.tokens // 8)
    parts = split_prompt(
        prompt,
        window.count,
        head_tokens=window.tokens // 5,
        tail_tokens=tail_tokens,
        label_tokens=window.tokens // 2,
        question=question,
        delimiter=delimiter,
    )
    context = fit_context(xl3m, parts, window, **how)
    fitted = parts.head + context.text + parts.tail
    spans = tuple((start + parts.start, end + parts.start) for start, end in context.spans)
    return FittedPrompt(fitted, window.count(fitted), spans, context.segments, parts.question, context.certainty)


def with_question(prompt: str, question: str | None) -> str:
    """The prompt, with the question as its last paragraph where it does not hold it."""
    return prompt if question is None or question in prompt else f"{prompt}\n\n{question}"


def fit_context(xl3m: XL3M, parts: SplitPrompt, window: Window, **how: Unpack[Choice]) -> KeyContext:
    """What of the context fits between head and tail.

    Raises:
        InputError: Head and tail leave no room.
    """
    around = window.count(parts.head + parts.tail)
    room = window.prompt - around - SEAM_TOKENS
    if room < 1:
        raise InputError(
            f"Instructions and question take {around} tokens and the answer up to {window.answer}, but the reader's "
            f"window is {window.tokens} tokens, which leaves no room for the context. Shorten them, lower "
            "max_new_tokens, or mark the context with delimiter=."
        )
    context, _ = xl3m.key_context(parts.context, parts.question, room, window.count, **how)
    return context
