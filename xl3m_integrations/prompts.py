"""Templates around segment and question, joined as token ids so that a segment keeps the tokens it was cut from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xl3m_integrations.errors import InputError, SettingError

DEFAULT_TEMPLATE = "{segment}\n\nQuestion: {question}\nAnswer:"
LITERAL = "\ufdd0"  # a noncharacter: within a prompt, what spells a special token around it is plain text
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


def stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """The strings that end an answer; one string is one of them.

    Raises:
        SettingError: One is empty.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if "" in stops:
        raise SettingError("stop holds an empty string, which would end every answer before it begins; leave it out.")
    return stops


def require_question(question: str) -> str:
    """`question`, which must be a string that holds more than whitespace.

    Raises:
        InputError: It is empty.
    """
    if not isinstance(question, str) or not question.strip():
        raise InputError("The question is empty; ask something, for instance 'What is the access code?'.")
    return question


def render_chat(tokenizer: Any, turns: Sequence[tuple[str, str]]) -> str:
    """A conversation as one prompt, by the tokenizer's chat template, or as plain `role: text` lines without one.

    Neighbouring turns of one role are merged, since many templates insist on alternation; a tool's output counts as the
    user's; where a template has no system role, the system's text opens the first turn. A special token that a turn
    spells is marked as literal, so that no document can end its turn.

    Args:
        tokenizer: A `transformers` tokenizer.
        turns: (role, text); roles are `system`, `user`, `assistant` and `tool`.
    """
    merged: list[tuple[str, str]] = []
    for role, said in turns:
        role, text = "user" if role == "tool" else role, _literal(tokenizer, said)
        if merged and merged[-1][0] == role:
            text = f"{merged.pop()[1]}\n\n{text}"
        merged.append((role, text))
    if not getattr(tokenizer, "chat_template", None):
        return "\n\n".join(f"{role}: {text}" for role, text in [*merged, ("assistant", "")]).rstrip()
    try:
        return _by_template(tokenizer, merged)
    except Exception:
        if not merged or merged[0][0] != "system":
            raise
        (_, system), *rest = merged
        first = rest[0][1] if rest and rest[0][0] == "user" else ""
        opened = ("user", f"{system}\n\n{first}".rstrip())
        return _by_template(tokenizer, [opened, *rest[1 if first else 0 :]])


def _literal(tokenizer: Any, text: str) -> str:
    for name in tokenizer.all_special_tokens:
        text = text.replace(name, name[0] + LITERAL + name[1:])
    return text


def _by_template(tokenizer: Any, turns: Sequence[tuple[str, str]]) -> str:
    messages = [{"role": role, "content": text} for role, text in turns]
    rendered: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return rendered
