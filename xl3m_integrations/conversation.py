"""A conversation that is too long -> one that fits: roles and order stay, long contents are cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from typing_extensions import Unpack

from xl3m_integrations.assembly import assemble, most_that_fit, no_room
from xl3m_integrations.choice import Choice
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import InputError
from xl3m_integrations.fitting import Window, with_question
from xl3m_integrations.splitting import SplitPrompt, question_of, split_prompt
from xl3m_integrations.types import Certainty, KeyContext, ScoredSegment

Role = Literal["system", "user", "assistant", "tool"]
SHORT = 128  # tokens up to which an earlier turn is kept whole, and a system turn in any case


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

    The last user turn's question stays verbatim, and so do system turns as far as half of the window goes; of longer
    ones the beginning and the end. Of the room that is left, short earlier turns take half at most, the latest first.
    All other contents compete segment by segment.

    Args:
        xl3m: Scores the segments.
        turns: The messages.
        window: The reader's window.
        count: Length of the whole conversation, in the reader's tokens, with these texts for the turns.
        question: What is asked, appended to the last user turn where that does not hold it; None takes what the last
            user turn asks.
        **how: See `Choice`.

    Raises:
        InputError: No user turn, or what must stay verbatim does not fit.
        SettingError: No segment fits beside it.
    """
    texts = [turn.text for turn in turns]
    asking = [n for n, turn in enumerate(turns) if turn.role == "user"]
    if not asking:
        raise InputError("The conversation has no user turn, so there is no question; add a human message.")
    last = max((n for n in asking if texts[n].strip()), default=asking[-1])
    texts[last] = with_question(texts[last], question)
    tokens = count(texts)
    if tokens <= window.prompt:
        return FittedConversation(tuple(texts), {}, tokens)
    parts = {last: _parts(texts[last], window, question)} | _long_systems(turns, window)
    cut = _Cut(texts, parts, {n for n, turn in enumerate(turns) if turn.role == "system"})
    needed = count(cut.filled({}))
    if needed >= window.prompt or not cut.contents:
        raise InputError(
            f"The question, short system messages and the ends of long ones take {needed} tokens and the answer up to "
            f"{window.answer}, but the reader's window is {window.tokens} tokens. Shorten them, or lower the answer's "
            "limit."
        )
    short = [n for n in sorted(cut.contents, reverse=True) if n not in parts and window.count(texts[n]) <= SHORT]
    half = needed + (window.prompt - needed) // 2
    whole = short[: most_that_fit(len(short), lambda k: count(cut.filled({n: texts[n] for n in short[:k]})) <= half)]
    asked = question or parts[last].question
    found = _ranked(xl3m, {n: text for n, text in cut.contents.items() if n not in whole}, asked, how)

    def fits(best: int) -> bool:
        return count(cut.filled(cut.with_best(found[:best], whole))) <= window.prompt

    while not (best := most_that_fit(len(found), fits)) and whole:
        whole.pop()  # the oldest: one segment of what competes is worth more
    if not best:
        raise no_room(found[0].segment.tokens)
    kept = cut.filled(cut.with_best(found[:best], whole))
    return FittedConversation(tuple(kept), cut.contexts(found[:best]), count(kept), asked)


@dataclass(frozen=True, slots=True)
class _Found:
    """A kept segment, the number of its turn, and how certain the selection was."""

    segment: ScoredSegment
    turn: int
    certainty: Certainty | None


class _Cut:
    """A conversation in what stays verbatim and what competes.

    Args:
        texts: Of each turn.
        parts: By number, the turns of which beginning and end stay.
        verbatim: Numbers of the other turns that stay whole.
    """

    def __init__(self, texts: Sequence[str], parts: Mapping[int, SplitPrompt], verbatim: set[int]) -> None:
        self._texts = texts
        self._parts = parts
        whole = {n: text for n, text in enumerate(texts) if n not in verbatim} | {
            n: p.context for n, p in parts.items()
        }
        self.contents = {n: text for n, text in sorted(whole.items()) if text.strip()}

    def filled(self, contents: Mapping[int, str]) -> list[str | None]:
        """The turns' texts with these contents; None where nothing is left of one."""
        texts: list[str | None] = list(self._texts)
        for number in self.contents:
            texts[number] = contents.get(number)
            if number in self._parts:
                texts[number] = self._parts[number].head + (texts[number] or "") + self._parts[number].tail
        return texts

    def with_best(self, found: Sequence[_Found], whole: Sequence[int]) -> dict[int, str]:
        """Contents: these segments, spliced within each turn, and turns that are kept whole."""
        spliced = {number: context.text for number, context in self._spliced(found).items()}
        return spliced | {number: self._texts[number] for number in whole}

    def contexts(self, found: Sequence[_Found]) -> dict[int, KeyContext]:
        """What was kept of the turns that were cut; offsets count within the turn's text."""
        starts = {number: part.start for number, part in self._parts.items()}
        return {number: _moved(context, starts.get(number, 0)) for number, context in self._spliced(found).items()}

    def _spliced(self, found: Sequence[_Found]) -> dict[int, KeyContext]:
        own: dict[int, list[_Found]] = {}
        for one in found:
            own.setdefault(one.turn, []).append(one)
        return {number: _assembled(some, self.contents[number]) for number, some in own.items()}


def _long_systems(turns: Sequence[Turn], window: Window) -> dict[int, SplitPrompt]:
    """The system turns that are cut: the long ones, where all together take more than half of the window."""
    lengths = {n: window.count(turn.text) for n, turn in enumerate(turns) if turn.role == "system"}
    if sum(lengths.values()) <= window.prompt // 2:
        return {}
    return {n: _parts(turns[n].text, window) for n, length in lengths.items() if length > SHORT}


def _parts(text: str, window: Window, question: str | None = None) -> SplitPrompt:
    """A turn of which beginning and end stay, and what stands between competes if it is long."""
    if window.count(text) <= window.tokens // 4:
        return SplitPrompt("", "", text, question or question_of(text), 0)
    return split_prompt(
        text,
        window.count,
        head_tokens=min(SHORT, window.tokens // 8),
        tail_tokens=min(64, window.tokens // 8),
        label_tokens=window.tokens // 4,
        question=question,
    )


def _ranked(xl3m: XL3M, contents: Mapping[int, str], question: str, how: Choice) -> list[_Found]:
    """The kept segments of all contents, the best first."""
    selections = xl3m.select_documents(list(contents.values()), question, **how)
    found = [
        _Found(segment, number, selected.certainty)
        for number, selected in zip(contents, selections, strict=True)
        for segment in selected.segments
    ]
    return sorted(found, key=lambda one: one.segment.rank)


def _assembled(found: Sequence[_Found], text: str) -> KeyContext:
    segments = [one.segment for one in found]
    return assemble(segments, lambda start, end: text[start:end], certainty=found[0].certainty)


def _moved(context: KeyContext, by: int) -> KeyContext:
    return replace(context, spans=tuple((start + by, end + by) for start, end in context.spans))
