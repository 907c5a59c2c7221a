"""One question of one document, with what must be read to answer it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xl3m_integrations.types import Span


@dataclass(frozen=True, slots=True)
class Example:
    """A document, a question, and what is known of its answer.

    Attributes:
        task: Name of the task, or of the file's rows, that it belongs to.
        text: The document.
        question: The question.
        answers: Accepted answers; any one of them will do unless `needs_all`.
        gold: (start, end) in characters of each passage that the answer needs, up to the end of the value in it.
        facts: (start, end) of the whole statements that tell the answer; empty where leaving them out of the document
            would not make the question unanswerable.
        length: Tokens that were asked for; None for rows of a file, which are as long as they are.
        number: Number of the example in its task, from 0.
        needs_all: Whether every one of `answers` must be given.
        answerable: Whether the document holds the answer.
        cover: Share of a gold passage's characters that must be read for it to count as found.
    """

    task: str
    text: str
    question: str
    answers: tuple[str, ...]
    gold: tuple[Span, ...]
    facts: tuple[Span, ...] = ()
    length: int | None = None
    number: int = 0
    needs_all: bool = False
    answerable: bool = True
    cover: float = 1.0

    @property
    def depths(self) -> tuple[float, ...]:
        """Where in the document each gold passage begins, from 0 to 1."""
        return tuple(start / len(self.text) for start, _ in self.gold)

    def twin(self) -> Example | None:
        """The same without the statements that tell the answer, look-alikes kept; None where `facts` is empty."""
        if not self.facts:
            return None
        return replace(self, text=_without(self.text, self.facts), gold=(), facts=(), answerable=False)


def _without(text: str, spans: Sequence[Span]) -> str:
    """`text` without the spans, and without the space or line end that follows each."""
    kept, at = [], 0
    for start, end in sorted(spans):
        kept.append(text[at:start])
        at = end + text[end : end + 1].isspace()
    return "".join([*kept, text[at:]])
