"""A tokenizer as XL3M needs it: no special tokens from documents, only from templates, and offsets kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Encoding, Tokenizer

from xl3m_integrations.errors import InputError, ModelLoadError
from xl3m_integrations.prompts import LITERAL, QuestionPrompt, Template

_ANCHORS = ("\n", "a", ".")


class TextTokenizer:
    """A private copy of a Hugging Face fast tokenizer.

    The copy has truncation and padding off and reads special tokens in a document as plain text. The caller's tokenizer
    is left alone, and any number of threads may use the copy.

    Args:
        tokenizer: A `transformers` tokenizer with a fast backend.

    Raises:
        ModelLoadError: The tokenizer has no fast backend, which alone knows character offsets.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelLoadError(
                f"{type(tokenizer).__name__} has no fast backend, so it cannot tell which characters a token covers; "
                "load a tokenizer that has one (a tokenizer.json)."
            )
        self._plain = _copy(backend, special=False)
        self._special = _copy(backend, special=True)
        names = sorted(set(tokenizer.all_special_tokens), key=len, reverse=True)
        self._specials = re.compile("|".join(map(re.escape, names))) if names else None
        self.bos_ids: tuple[int, ...] = _leading_bos(tokenizer, self._special)
        self.eos_id: int | None = tokenizer.eos_token_id
        self._known: set[str] = set()
        self._unknown: dict[int, str] = {}
        self._drops_characters = self._drops("\ue000")

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Encode texts as they are, special tokens read as plain text, on all cores."""
        for text in texts:
            require_encodable(text)
        readable = [self._readable(text) for text in texts] if self._drops_characters else list(texts)
        return self._plain.encode_batch(readable, add_special_tokens=False)

    def ids(self, text: str) -> list[int]:
        """Token ids of one text, special tokens read as plain text."""
        return self.encode([text])[0].ids

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a whole prompt: special tokens that it spells count, and the text's beginning is marked once."""
        require_encodable(prompt)
        ids = self._mixed(prompt) if LITERAL in prompt else self._template_ids(prompt)
        return ids if tuple(ids[: len(self.bos_ids)]) == self.bos_ids else [*self.bos_ids, *ids]

    def _mixed(self, prompt: str) -> list[int]:
        """Ids of a prompt in which some spellings of special tokens are marked as literal."""
        ids: list[int] = []
        at = 0
        for found in self._specials.finditer(prompt) if self._specials else ():
            ids += [*self.ids(prompt[at : found.start()].replace(LITERAL, "")), *self._template_ids(found[0])]
            at = found.end()
        return ids + self.ids(prompt[at:].replace(LITERAL, ""))

    def mark_specials(self, text: str, mark: str) -> str:
        """`text` with `mark` within every spelling of a special token, so that none is left."""
        return self._specials.sub(lambda found: found[0][0] + mark + found[0][1:], text) if self._specials else text

    def count(self, text: str) -> int:
        """Length of `text` in tokens."""
        return len(self.ids(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens left out."""
        return self._special.decode(list(ids), skip_special_tokens=True)

    def wrap(self, template: Template, question: str) -> QuestionPrompt:
        """The ids of `template` and `question` around a segment.

        Special tokens count in the template's parts only: a question that spells one cannot end its turn. Where the
        template does not start with the model's beginning-of-text token, that token is put first.
        """
        before, loose = self._split_last_special(template.between)
        closing, after = self._split_first_special(template.after)
        asked = loose + question + closing
        encoding, skipped = self._continuation(asked)
        at = skipped + len(loose)
        inside = [
            i
            for i, (start, end) in enumerate(encoding.offsets)
            if start < at + len(question) and end > at and end > skipped
        ]
        lead = sum(1 for _, end in encoding.offsets if end <= skipped) if skipped else 0
        first = self._template_ids(before)
        body = encoding.ids[lead:]
        question_slice = slice(0, 0)
        if inside:
            question_slice = slice(len(first) + inside[0] - lead, len(first) + inside[-1] + 1 - lead)
        head = self._template_ids(template.before)
        if tuple(head[: len(self.bos_ids)]) != self.bos_ids:
            head = [*self.bos_ids, *head]
        return QuestionPrompt(tuple(head), (*first, *body, *self._template_ids(after)), question_slice)

    def _drops(self, character: str) -> bool:
        return self._plain.encode(f"a{character}a").ids == self._plain.encode("aa").ids

    def _readable(self, text: str) -> str:
        """`text` with a space for each character that the tokenizer would leave out without a trace.

        A vocabulary with neither an unknown token nor bytes to fall back on does so, and the offsets of all later
        tokens are then too small.
        """
        for character in set(text) - self._known:
            if not character.isspace() and self._drops(character):
                self._unknown[ord(character)] = " "
            self._known.add(character)  # last, since other threads then rely on it
        return text.translate(self._unknown)

    def _continuation(self, text: str) -> tuple[Encoding, int]:
        """Encode `text` as it is encoded in the middle of a text; also the length of the anchor put before it.

        Some tokenizers put a space before whatever comes first; behind an anchor they do not. The anchor is used only
        where it keeps its own tokens, so that it can be taken off again.
        """
        plain = self.encode([text])[0]
        for anchor in _ANCHORS:
            alone, both = self.encode([anchor, anchor + text])
            if both.ids == alone.ids + plain.ids:
                return plain, 0
            if both.ids[: len(alone.ids)] == alone.ids and both.offsets[len(alone.ids)][0] >= len(anchor):
                return both, len(anchor)
        return plain, 0

    def _template_ids(self, text: str) -> list[int]:
        return self._special.encode(text, add_special_tokens=False).ids if text else []

    def _split_last_special(self, text: str) -> tuple[str, str]:
        found = list(self._specials.finditer(text)) if self._specials else []
        at = found[-1].end() if found else 0
        return text[:at], text[at:]

    def _split_first_special(self, text: str) -> tuple[str, str]:
        found = self._specials.search(text) if self._specials else None
        at = found.start() if found else len(text)
        return text[:at], text[at:]


def require_encodable(text: str, offset: int = 0) -> None:
    """Refuse lone surrogates, which no tokenizer can encode.

    Args:
        text: Any string.
        offset: Where it begins in the document, for the message.

    Raises:
        InputError: There is one; the message tells where.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text holds a lone surrogate, {text[error.start]!r}, at character {offset + error.start}: it is not "
            "valid Unicode. Decode the source with errors='replace', or remove the character."
        ) from None


def _copy(backend: Tokenizer, *, special: bool) -> Tokenizer:
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = not special
    return copy


def _leading_bos(tokenizer: Any, copy: Tokenizer) -> tuple[int, ...]:
    # Asked of the copy: calling the tokenizer would reset its backend's truncation and padding.
    bos = tokenizer.bos_token_id
    return (bos,) if bos is not None and copy.encode("").ids[:1] == [bos] else ()
