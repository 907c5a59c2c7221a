"""What a backend does with text rather than with a model: templates around questions, and counting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from xl3m_integrations.prompts import QuestionPrompt, Template, render_chat, require_question
from xl3m_integrations.tokens import TextTokenizer


class Prompting:
    """The half of `Scorer` and `Generator` that needs a tokenizer and a template alone.

    Args:
        tokenizer: A `transformers` tokenizer with a fast backend.
        template: Text around segment and question, with `{segment}` and `{question}`; None takes the tokenizer's chat
            template, or a plain one where it has none.
    """

    def __init__(self, tokenizer: Any, template: str | None) -> None:
        self.hf_tokenizer = tokenizer
        self.tokenizer = TextTokenizer(tokenizer)
        self.template = Template.of_tokenizer(tokenizer) if template is None else Template.parse(template)

    def prompt(self, question: str) -> QuestionPrompt:
        """The ids of template and question."""
        return self.tokenizer.wrap(self.template, require_question(question))

    def overhead(self, question: str) -> int:
        """Tokens of template and question."""
        return self.prompt(question).overhead

    def count(self, context: str) -> int:
        """Length of `context` in tokens."""
        return self.tokenizer.count(context)

    def count_prompt(self, prompt: str) -> int:
        """Length of a whole prompt in tokens."""
        return len(self.tokenizer.prompt_ids(prompt))

    def render(self, turns: Sequence[tuple[str, str]]) -> str:
        """See `Generator.render`."""
        return render_chat(self.hf_tokenizer, turns)


def until(pieces: Iterable[str], stop: tuple[str, ...]) -> Iterator[str]:
    """The pieces up to the first stop string, which is left out; text that may begin one is held back."""
    held = ""
    longest = max((len(word) for word in stop), default=1)
    for piece in pieces:
        held += piece
        ends = [at for word in stop if (at := held.find(word)) >= 0]
        if ends:
            yield held[: min(ends)]
            return
        ready = len(held) - (longest - 1)
        if ready > 0:
            yield held[:ready]
            held = held[ready:]
    if held:
        yield held
