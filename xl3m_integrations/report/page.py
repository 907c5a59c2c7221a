"""The page: what its template shows, and the template filled in."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from xl3m_integrations.errors import MissingExtraError
from xl3m_integrations.report.figures import packed, shortened
from xl3m_integrations.types import Answer, KeyContext, ScoredSegment, Selection, Source, Span

try:
    import jinja2
except ImportError as error:
    raise MissingExtraError.of("The HTML page", "report") from error

PASSAGES = 200  # shown with their text, those with the best segments
SHOWN_CHARACTERS = 200_000  # of all passages together
AROUND = 200  # characters shown before and after a passage


@dataclass(frozen=True, slots=True)
class Passage:
    """An excerpt of the key context as the page shows it.

    Attributes:
        number: From 1, in document order.
        places: Where it stands, in words.
        before: What stands before it, for orientation.
        pieces: Its text, in pieces; those with an odd number are the answer.
        hidden: Characters that are not shown.
        after: What stands after it.
        segments: Its segments, in document order.
    """

    number: int
    places: tuple[str, ...]
    before: str
    pieces: tuple[str, ...]
    hidden: int
    after: str
    segments: tuple[ScoredSegment, ...]


def render(shown: Selection | Answer, sources: Sequence[Source] = ()) -> str:
    """The page of a selection, or of an answer with the selection behind it."""
    answer = shown if isinstance(shown, Answer) else None
    selection = shown.selection if isinstance(shown, Answer) else shown
    style, script = _part("page.css"), _part("page.js")
    all_passages = list(_passages(shown.key_context, selection, answer.text if answer else "", sources))
    ranked = sorted(shown.key_context.segments, key=lambda segment: segment.rank)[:PASSAGES]
    return _template().render(
        question=shown.question,
        answer=answer,
        selection=selection,
        facts=list(_facts(shown.key_context, selection, answer)),
        passages=all_passages,
        unshown=len(shown.key_context.spans) - len(all_passages),
        ranked=ranked,
        evidence=list(dict.fromkeys(name for segment in ranked for name in segment.evidence)),
        dropped=shown.key_context.dropped,
        settings=_settings(selection),
        figures=packed(shown, sources),
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
    )


def _passages(
    context: KeyContext, selection: Selection | None, answer: str, sources: Sequence[Source]
) -> Iterator[Passage]:
    """The passages in document order, the best ones where there are too many to show."""
    cut = selection.table.cut if selection else None
    own = _by_span(context)
    best = sorted(range(len(own)), key=lambda i: min((segment.rank for segment in own[i]), default=0))[:PASSAGES]
    room = SHOWN_CHARACTERS
    for number in sorted(best):
        start, end = context.spans[number]
        text = _joined(own[number], start) if own[number] else context.text
        pieces = tuple(_marked(text[:room], answer))
        room -= min(room, len(text))
        yield Passage(
            number=number + 1,
            places=tuple(_places((start, end), sources)),
            before=cut(max(0, start - AROUND), start) if cut else "",
            pieces=pieces,
            hidden=len(text) - sum(map(len, pieces)),
            after=cut(end, end + AROUND) if cut else "",
            segments=own[number],
        )


def _by_span(context: KeyContext) -> list[tuple[ScoredSegment, ...]]:
    """The segments of each span."""
    found: list[list[ScoredSegment]] = [[] for _ in context.spans]
    number = 0
    for segment in sorted(context.segments, key=lambda segment: segment.start):
        while segment.start >= context.spans[number][1]:
            number += 1
        found[number].append(segment)
    return [tuple(segments) for segments in found]


def _joined(segments: Sequence[ScoredSegment], start: int) -> str:
    """The text of segments that overlap or touch, from `start` on."""
    text = ""
    for segment in segments:
        text += segment.text[start + len(text) - segment.start :]
    return text


def _marked(text: str, answer: str) -> Iterator[str]:
    """The text in pieces, of which those with an odd number are the answer, word for word."""
    sought = answer.strip().strip(".")
    if not sought:
        return iter((text,))
    return iter(re.split(rf"(?<!\w)({re.escape(sought)})(?!\w)", text, flags=re.IGNORECASE))


def _places(span: Span, sources: Sequence[Source]) -> Iterator[str]:
    """A span in words: characters of the document, or of each source that it touches."""
    start, end = span
    parts = [(name, max(start, low) - low, min(end, high) - low) for name, low, high in sources]
    touched = [(shortened(name), low, high) for name, low, high in parts if low < high]
    for name, low, high in touched:
        yield f"{name}, characters {low:,} to {high:,}"
    if not touched:
        yield f"characters {start:,} to {end:,}"


def _facts(context: KeyContext, selection: Selection | None, answer: Answer | None) -> Iterator[tuple[str, str]]:
    """(label, figure) pairs for the head of the page."""
    read = sum(end - start for start, end in context.spans)
    if selection:
        yield "Document", f"{selection.characters:,} characters"
        yield "Tokens", f"{selection.tokens:,}"
        filtered = f", of which the model read {selection.read:,}" if selection.read < len(selection.scores) else ""
        yield "Segments", f"{len(selection.scores):,}{filtered}"
        yield "Kept", f"{len(context.segments):,} ({_percent(read, selection.characters)} of the text)"
        yield "Selected in", f"{selection.seconds:,.1f} s"
    else:
        yield "Document", f"{read:,} characters, read whole"
    if context.certainty:
        yield "Certainty", f"{context.certainty.probability:.0%} that the text holds the answer"
    if answer:
        yield "Prompt", f"{answer.prompt_tokens:,} tokens"


def _percent(part: int, whole: int) -> str:
    share = 100 * part / max(1, whole)
    return f"{share:.0f}%" if share >= 10 else f"{share:.2g}%"


def _settings(selection: Selection | None) -> dict[str, Any]:
    if selection is None:
        return {}
    return {"measure": selection.measure} | {
        name.replace("_", " "): value for name, value in selection.settings.items()
    }


@cache
def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    settings: dict[str, Any] = {"autoescape": True, "undefined": jinja2.StrictUndefined}
    return jinja2.Environment(**settings, trim_blocks=True, lstrip_blocks=True).from_string(_part("page.html.jinja"))


def _hash(code: str) -> str:
    """A style or script as a content security policy names it, so that the page can run no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
