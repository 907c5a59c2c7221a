"""A conversation that is too long -> one that fits: roles and order stay, long contents are cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from typing_extensions import Unpack

from xl3m_integrations.assembly import assemble, most_that_fit
from xl3m_integrations.choice import Choice
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import InputError
from xl3m_integrations.fitting import Window
from xl3m_integrations.splitting import SplitPrompt, question_of, split_prompt
from xl3m_integrations.types import Certainty, KeyContext, ScoredSegment

Role = Literal["system", "user", "assistant", "tool"]
SHORT = 128  # tokens up to which an earlier turn is kept whole, the latest first, in half of the window at most


@dataclass(frozen=True, slots=True)
class Turn:
    """One message.

    Attributes:
        role: Who speaks.
        text: What is said.
    """

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class FittedConversation:
    """A conversation that fits.

    Attributes:
        texts: Text of each turn, in order; None where nothing of it was kept.
        contexts: By number of the turn, what was kept of those that were cut; offsets count within the turn's text.
        tokens: Length of the whole in the reader's tokens.
        question: What the scorer was asked; None where everything fitted.
    """

    texts: tuple[str | None, ...]
    contexts: dict[int, KeyContext]
    tokens: int
    question: str | None = None

    def info(self) -> dict[str, Any]:
        """Spans, scores, certainty and token count, as frameworks put them beside an answer."""
        kept: dict[str, Any] = {"prompt_tokens": self.tokens}
        if self.question is None:
            return kept
        cut = sorted(self.contexts.items())
        spans = [{"message": number, "spans": [list(span) for span in context.spans]} for number, context in cut]
        scores = [segment.score for _, context in cut for segment in context.segments]
        sure = next((context.certainty.info() for _, context in cut if context.certainty), {})
        return {**kept, "xl3m_spans": spans, "xl3m_scores": scores, **sure}


def fit_conversation(
    xl3m: XL3M,
    turns: Sequence[Turn],
    window: Window,
    count: Callable[[Sequence[str | None]], int],
    *,
    question: str | None = None,
    **how: Unpack[Choice],
) -> FittedConversation:
    """Cut long contents until the conversation fits the window.

    System turns and the last user turn's question stay verbatim. Short earlier turns stay whole as far as half of the
    window goes, the latest first. All other contents compete segment by segment.

    Args:
        xl3m: Scores the segments.
        turns: The messages.
        window: The reader's window.
        count: Length of the whole conversation, in the reader's tokens, with these texts for the turns.
        question: What the scorer is asked; None takes the last user turn's question.
        **how: See `Choice`.

    Raises:
        InputError: No user turn, or what must stay verbatim does not fit.
    """
    texts = [turn.text for turn in turns]
    last = max((n for n, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is None:
        raise InputError("The conversation has no user turn, so there is no question; add a human message.")
    tokens = count(texts)
    if tokens <= window.prompt:
        return FittedConversation(tuple(texts), {}, tokens)
    parts = _parts(texts[last], window, question)
    asked = question or parts.question
    contents = {n: text for n, text in enumerate(texts) if n != last and turns[n].role != "system" and text.strip()}
    if parts.context.strip():
        contents[last] = parts.context
    for number in _kept_whole(contents, last, window):
        del contents[number]

    def filled(contexts: dict[int, KeyContext]) -> list[str | None]:
        whole: list[str | None] = list(texts)
        for number in contents:
            whole[number] = contexts[number].text if number in contexts else None
        if last in contents:
            whole[last] = parts.head + (whole[last] or "") + parts.tail
        return whole

    needed = count(filled({}))
    if needed >= window.prompt or not contents:
        raise InputError(
            f"The system message and the last question take {needed} tokens and the answer up to {window.answer}, but "
            f"the reader's window is {window.tokens} tokens. Shorten them, or lower the answer's limit."
        )
    contexts = _best(xl3m, contents, asked, lambda chosen: count(filled(chosen)) <= window.prompt, how)
    kept = filled(contexts)
    at = len(parts.head)
    moved = {n: _moved(context, at) if n == last else context for n, context in contexts.items()}
    return FittedConversation(tuple(kept), moved, count(kept), asked)


def _parts(text: str, window: Window, question: str | None) -> SplitPrompt:
    """The last user turn: its question stays, and if it is long, what stands before the question competes."""
    if window.count(text) <= window.tokens // 4:
        return SplitPrompt("", "", text, question_of(text))
    return split_prompt(
        text,
        window.count,
        head_tokens=min(SHORT, window.tokens // 8),
        tail_tokens=min(64, window.tokens // 8),
        question=question,
    )


def _kept_whole(contents: dict[int, str], last: int, window: Window) -> list[int]:
    room = window.prompt // 2
    whole = []
    for number in sorted(contents, reverse=True):
        length = window.count(contents[number])
        if number == last or length > SHORT:
            continue
        room -= length
        if room < 0:
            break
        whole.append(number)
    return whole


def _best(
    xl3m: XL3M,
    contents: dict[int, str],
    question: str,
    fits: Callable[[dict[int, KeyContext]], bool],
    how: Choice,
) -> dict[int, KeyContext]:
    """As many of the best segments of all contents as fit, spliced within each."""
    numbers = sorted(contents)
    selections = xl3m.select_documents([contents[number] for number in numbers], question, **how)
    ranked = sorted(
        ((segment, number) for number, kept in zip(numbers, selections, strict=True) for segment in kept.segments),
        key=lambda pair: pair[0].rank,
    )

    def spliced(count: int) -> dict[int, KeyContext]:
        chosen: dict[int, list[ScoredSegment]] = {}
        for segment, number in ranked[:count]:
            chosen.setdefault(number, []).append(segment)
        sure = selections[0].certainty
        return {number: _assembled(segments, contents[number], sure) for number, segments in chosen.items()}

    return spliced(most_that_fit(len(ranked), lambda count: fits(spliced(count))))


def _assembled(segments: Sequence[ScoredSegment], text: str, certainty: Certainty | None) -> KeyContext:
    return assemble(segments, lambda start, end: text[start:end], certainty=certainty)


def _moved(context: KeyContext, by: int) -> KeyContext:
    return replace(context, spans=tuple((start + by, end + by) for start, end in context.spans))
