"""Templates around segment and question, joined as token ids so that a segment keeps the tokens it was cut from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from xl3m_integrations.errors import InputError, SettingError

DEFAULT_TEMPLATE = "{segment}\n\nQuestion: {question}\nAnswer:"
CHAT_CONTENT = "{segment}\n\nQuestion: {question}"
_MARK_SEGMENT, _MARK_QUESTION = "\u2402segment\u2403", "\u2402question\u2403"


@dataclass(frozen=True, slots=True)
class Template:
    """The text before the segment, between segment and question, and after the question.

    Attributes:
        before: Text before the segment; may hold special tokens.
        between: Text between segment and question; may hold special tokens.
        after: Text after the question; may hold special tokens.
    """

    before: str
    between: str
    after: str

    @classmethod
    def parse(cls, text: str) -> Template:
        """A template from a string with `{segment}` and, after it, `{question}`, each once.

        Raises:
            SettingError: A placeholder is missing, repeated, or in the wrong order.
        """
        parts = re.fullmatch(r"(.*)\{segment\}(.*)\{question\}(.*)", text, re.DOTALL)
        if parts is None or any(mark in part for part in parts.groups() for mark in ("{segment}", "{question}")):
            raise SettingError(
                f"template is {text!r}; it must hold {{segment}} once and, after it, {{question}} once "
                "(the segment comes first, so that what the model computed for it serves every question)."
            )
        return cls(*parts.groups())

    @classmethod
    def of_tokenizer(cls, tokenizer: Any) -> Template:
        """The tokenizer's chat template around segment and question where it has one, else the default template."""
        if not getattr(tokenizer, "chat_template", None):
            return cls.parse(DEFAULT_TEMPLATE)
        content = CHAT_CONTENT.format(segment=_MARK_SEGMENT, question=_MARK_QUESTION)
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        before, found, rest = text.partition(_MARK_SEGMENT)
        between, asked, after = rest.partition(_MARK_QUESTION)
        if not (found and asked):
            raise SettingError("The tokenizer's chat template drops the user's message; pass template= instead.")
        return cls(before, between, after)


@dataclass(frozen=True, slots=True)
class QuestionPrompt:
    """A question wrapped in its template, ready to be put around any segment.

    Attributes:
        before: Token ids before the segment.
        after: Token ids after the segment: question and what follows it.
        question: The part of `after` that is the question itself, as a slice.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    question: slice

    @property
    def overhead(self) -> int:
        """Tokens of a sub-context beside the segment's."""
        return len(self.before) + len(self.after)


def require_question(question: str) -> str:
    """`question`, which must be a string that holds more than whitespace.

    Raises:
        InputError: It is empty.
    """
    if not question.strip():
        raise InputError("The question is empty; ask something, for instance 'What is the access code?'.")
    return question
