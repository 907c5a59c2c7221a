"""Document -> segments. Ids and offsets come from one encoding; nothing is tokenised twice or held longer than needed.

A long text is encoded in blocks. Each block is encoded together with some text on either side; neighbouring encodings
are joined at a place where both agree on the tokens before and after it, so that the cuts change no token. Where they
do not agree the blocks are encoded as one.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from tokenizers import Encoding

from xl3m_integrations.errors import SettingError
from xl3m_integrations.tokens import TextTokenizer, require_encodable
from xl3m_integrations.types import Segment, Span

BLOCK_CHARACTERS = 16_384
BLOCKS_AT_ONCE = 8  # encoded in parallel
MARGIN = 512  # characters of context on either side of a block
AGREEMENT = 4  # tokens on either side of a join that both encodings must share
_LONGEST_CHARACTER = 24  # tokens to go back, at most, for a cut that falls between two characters
# Where a line or a sentence ends; not after an initial or a short title, as in `J. Doe` and `Mr. Doe`.
_ENDS = re.compile(
    r"""\n|(?<![.\s]\w)(?<![A-Z][a-z])[.!?\u2026]+["'\u201d\u2019\u00bb)\]}*_]*(?=\s)"""
    r"""|[\u3002\uff01\uff1f][\u300d\u300f\u201d\u2019\uff09]*"""
)


def sentences(text: str, most: int | None = None) -> list[Span]:
    """(start, end) of the sentences and lines of a text, without the whitespace around them; blank ones are left out.

    Args:
        text: The text.
        most: How many there may be: where there are more, as many neighbours as need be are one. None sets no limit.
    """
    ends = [found.end() for found in _ENDS.finditer(text)]
    spans = [(a, b) for a, b in zip([0, *ends], [*ends, len(text)], strict=True) if text[a:b].strip()]
    together = 1 if most is None else -(-len(spans) // most)
    groups = [spans[at : at + together] for at in range(0, len(spans), max(1, together))]
    return [_stripped(text, group[0][0], group[-1][1]) for group in groups]


def _stripped(text: str, start: int, end: int) -> Span:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())


@dataclass(slots=True)
class _Tokens:
    """A run of tokens of one encoding: those with index in [first, last), `offset` characters into the document."""

    encoding: Encoding
    ids: list[int]
    first: int
    last: int
    offset: int

    def start_of(self, token: int) -> int:
        span = self.encoding.token_to_chars(token)
        return self.offset + (span[0] if span else 0)

    def end_of(self, token: int) -> int:
        span = self.encoding.token_to_chars(token)
        return self.offset + (span[1] if span else 0)

    def at_or_after(self, character: int) -> int:
        """The first token that starts at `character` or later."""
        return bisect_left(range(len(self.ids)), character, key=self.start_of)


@dataclass(frozen=True, slots=True)
class Segmenter:
    """Cuts documents into overlapping windows of tokens.

    Attributes:
        tokenizer: The scoring model's tokenizer.
        segment_tokens: Length of a segment, in tokens. A segment is a few tokens shorter where its end would fall
            inside a character or a combined sequence (an accent, a joined emoji, CR LF), and at the document's end.
        overlap_tokens: Tokens that neighbours share, about: a segment begins with the first sentence or line that
            begins so near before the end of the one before it. Where none does, it begins with the one that the end has
            cut, so that every sentence and line no longer than a segment stands whole in one; where there is no end of
            sentence or line at all, exactly so many tokens before. 0 shares none.
    """

    tokenizer: TextTokenizer
    segment_tokens: int
    overlap_tokens: int

    def __post_init__(self) -> None:
        """Refuse windows that could not advance."""
        if self.segment_tokens < 8:
            raise SettingError(f"segment_tokens is {self.segment_tokens}; it must be at least 8.")
        if not 0 <= self.overlap_tokens <= self.segment_tokens // 2:
            raise SettingError(
                f"overlap_tokens is {self.overlap_tokens}; it must be between 0 and half of segment_tokens "
                f"({self.segment_tokens // 2})."
            )

    def segments(self, pieces: Iterable[str], document: int = 0) -> Iterator[Segment]:
        """The segments of a document that comes in pieces, in order.

        Args:
            pieces: Strings whose concatenation is the document.
            document: Number to put on the segments.

        Yields:
            Segments whose spans cover the document; an empty document has none.

        Raises:
            InputError: The text holds a lone surrogate.
        """
        window = _Window()
        index = begin = begin_at = stop = 0
        blocks = _blocks(self.tokenizer, pieces, window)
        more = True
        while True:
            while more and window.end < begin + self.segment_tokens + 1:
                more = next(blocks, None) is not None
            if begin >= window.end and window.text_end == begin_at:
                return
            is_last = window.end <= begin + self.segment_tokens
            stop = window.end if is_last else window.cut(begin + self.segment_tokens, stop + 1)
            stop_at = window.text_end if is_last else window.boundary(stop)
            text = window.slice(begin_at, stop_at)
            yield Segment(index, begin_at, stop_at, text, window.ids(begin, stop), document, begin)
            if is_last:
                return
            index += 1
            begin = self._next(window, begin, stop)
            begin_at = window.boundary(begin)
            window.forget(begin, begin_at)

    def _next(self, window: _Window, begin: int, stop: int) -> int:
        """Where the segment after [begin, stop) begins: early enough to overlap, late enough to reach past `stop`."""
        if not self.overlap_tokens:
            return stop
        shared = max(begin + 1, stop - self.overlap_tokens)
        natural = next(window.ends(shared, stop), None) or max(window.ends(begin + 1, shared), default=None)
        if natural is not None:
            return natural
        lowest = max(begin + 1, stop - self.segment_tokens // 2)
        return window.cut(max(lowest, shared), lowest, otherwise=stop)


class _Window:
    """The part of the document that segments may still need: tokens by number, text by character."""

    def __init__(self) -> None:
        self._runs: deque[tuple[int, _Tokens]] = deque()  # (number of its first token, run)
        self.end = 0  # number of the token after the last
        self._text = ""
        self._text_start = 0

    @property
    def text_end(self) -> int:
        return self._text_start + len(self._text)

    def add(self, run: _Tokens, text: str) -> None:
        if run.last > run.first:
            self._runs.append((self.end, run))
            self.end += run.last - run.first
        self._text += text

    def forget(self, token: int, character: int) -> None:
        while len(self._runs) > 1 and self._runs[1][0] < token:
            self._runs.popleft()
        if character - self._text_start > BLOCK_CHARACTERS:
            self._text = self._text[character - self._text_start :]
            self._text_start = character

    def slice(self, start: int, end: int) -> str:
        return self._text[start - self._text_start : end - self._text_start]

    def ids(self, begin: int, stop: int) -> list[int]:
        ids: list[int] = []
        for number, run in self._runs:
            low, high = max(begin, number), min(stop, number + run.last - run.first)
            if low < high:
                ids += run.ids[run.first + low - number : run.first + high - number]
        return ids

    def _place(self, token: int) -> tuple[_Tokens, int]:
        number, run = next(entry for entry in reversed(self._runs) if entry[0] <= token)
        return run, run.first + token - number

    def boundary(self, token: int) -> int:
        """Where the text of the tokens before `token` ends; what no token covers goes to the token after it."""
        run, at = self._place(token - 1)
        return run.end_of(at)

    def cut(self, token: int, lowest: int, otherwise: int | None = None) -> int:
        """The nearest token at or before `token` that begins a character of its own; else `otherwise`, else `token`."""
        fallback = token if otherwise is None else otherwise
        floor = max(lowest, token - _LONGEST_CHARACTER)
        for candidate in range(token, floor - 1, -1):
            if self._is_clean(candidate, combined=True):
                return candidate
        return next((c for c in range(token, lowest - 1, -1) if self._is_clean(c, combined=False)), fallback)

    def ends(self, low: int, high: int) -> Iterator[int]:
        """The tokens from `low` to `high` before which a line or sentence ends, in order."""
        first, last = self.boundary(low) - self._text_start, self.boundary(high) - self._text_start
        for found in _ENDS.finditer(self._text, max(0, first - 1), last + 1):
            if not first <= found.end() <= last:
                continue
            token = self._at_or_after(self._text_start + found.end())
            between = self.slice(self._text_start + found.end(), self.boundary(token))
            if low <= token <= high and not between.strip() and self._is_clean(token, combined=True):
                yield token

    def _at_or_after(self, character: int) -> int:
        """The first token that starts at `character` or later."""
        number, run = next((n, r) for n, r in self._runs if r is self._runs[-1][1] or r.end_of(r.last - 1) > character)
        return number + max(run.at_or_after(character), run.first) - run.first

    def _is_clean(self, token: int, *, combined: bool) -> bool:
        edge = self.boundary(token)
        run, at = self._place(token)
        if run.start_of(at) < edge:
            return False
        around = self.slice(edge - 1, edge + 1)
        return not (combined and len(around) == 2 and _belong_together(*around))


def _belong_together(before: str, after: str) -> bool:
    """Whether a reader sees the two code points as one character, or as one line end."""
    return (
        (before == "\r" and after == "\n")
        or before == "\u200d"
        or after in "\u200d\ufe0e\ufe0f"
        or "\U0001f3fb" <= after <= "\U0001f3ff"
        or unicodedata.category(after) in ("Mn", "Me", "Mc")
    )


# ---------------------------------------------------------------------------------------------- encoding in blocks
def _blocks(tokenizer: TextTokenizer, pieces: Iterable[str], window: _Window) -> Iterator[bool]:
    """Feed the document's tokens and text to `window`, run by run; yields after each."""
    waiting: _Tokens | None = None  # encoded, and to be joined with what follows
    text, at = "", 0  # the text that `waiting` encodes, and its offset in the document
    done = 0  # characters whose tokens were handed over
    for (start, context), encoding in _encodings(tokenizer, _contexts(pieces)):
        run = _Tokens(encoding, encoding.ids, 0, len(encoding.ids), start)
        if waiting is None:
            waiting, text, at = run, context, start
            continue
        joint = _joint(waiting, run, start, at + len(text))
        if joint is None:
            text += context[at + len(text) - start :]
            whole = tokenizer.encode([text])[0]
            waiting = _Tokens(whole, whole.ids, waiting.first, len(whole.ids), at)
            continue
        waiting.last, run.first = joint
        edge = waiting.end_of(waiting.last - 1) if waiting.last else at
        window.add(waiting, text[done - at : edge - at])
        waiting, text, at, done = run, context, start, edge
        yield True
    if waiting is not None:
        window.add(waiting, text[done - at :])
        yield True


def _contexts(pieces: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Each block of the text behind some of what stands before it, and where that begins in the document."""
    start, context = 0, ""
    for block in _cut_text(pieces):
        lead = _quiet_start(context, MARGIN)
        start, context = start + lead, context[lead:] + block
        yield start, context


def _encodings(
    tokenizer: TextTokenizer, contexts: Iterator[tuple[int, str]]
) -> Iterator[tuple[tuple[int, str], Encoding]]:
    """Each context with its encoding. While some are made use of, a thread encodes those that follow."""
    batch = list(islice(contexts, BLOCKS_AT_ONCE))
    encodings = tokenizer.encode([context for _, context in batch])
    with ThreadPoolExecutor(1, "xl3m-encode") as thread:
        while batch:
            following = list(islice(contexts, BLOCKS_AT_ONCE))
            coming = thread.submit(tokenizer.encode, [context for _, context in following]) if following else None
            yield from zip(batch, encodings, strict=True)
            batch, encodings = following, coming.result() if coming else []


def _cut_text(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces' text in blocks of about `BLOCK_CHARACTERS`, surrogates refused."""
    parts: list[str] = []
    size = offset = 0
    for piece in pieces:
        for at in range(0, len(piece), BLOCK_CHARACTERS):
            part = piece[at : at + BLOCK_CHARACTERS]
            require_encodable(part, offset)
            parts.append(part)
            offset += len(part)
            size += len(part)
            if size >= BLOCK_CHARACTERS:
                yield "".join(parts)
                parts, size = [], 0
    if size:
        yield "".join(parts)


def _quiet_start(text: str, margin: int) -> int:
    """An offset about `2 * margin` before the end of `text` at which a word begins after a plain space or line end."""
    low = max(0, len(text) - 2 * margin)
    for at in range(low, max(low, len(text) - margin)):
        if text[at] == " " and at and text[at - 1].isalnum() and text[at + 1 : at + 2].isalpha():
            return at
    return low


def _joint(left: _Tokens, right: _Tokens, start: int, end: int) -> tuple[int, int] | None:
    """Where two encodings of overlapping text can be joined: (tokens of the left to keep, tokens of the right to drop).

    Args:
        left: Encodes the text up to `end`.
        right: Encodes the text from `start` on.
        start: Document offset at which the right encoding's text begins.
        end: Document offset at which the left encoding's text ends.

    Returns:
        None where there is no place at which `AGREEMENT` tokens on either side are the same.
    """
    middle = (start + end) // 2
    first = left.at_or_after(middle)
    for i in range(first, max(left.first, first - 64), -1):
        j = right.at_or_after(left.start_of(i)) if i < len(left.ids) else -1
        if j < AGREEMENT or i < max(AGREEMENT, left.first + 1):
            continue
        same = left.ids[i - AGREEMENT : i + AGREEMENT] == right.ids[j - AGREEMENT : j + AGREEMENT]
        places = left.start_of(i) == right.start_of(j) and left.end_of(i - 1) == right.end_of(j - 1)
        if same and places and left.end_of(i - 1) <= left.start_of(i) and i + AGREEMENT <= len(left.ids):
            return i, j
    return None
