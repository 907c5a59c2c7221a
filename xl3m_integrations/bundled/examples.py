"""Corpus documents as training rows: token ids, positions, an attention mask and loss weights.

A row is one context followed by several questions with their answers. Each question sees the context and itself, not
the other questions, and its positions continue from the context: exactly what the model reads when it is used.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerFast

from xl3m_integrations.bundled import corpus
from xl3m_integrations.bundled.corpus import Fact, Planted, Prose
from xl3m_integrations.bundled.tokenizer import BOS

# (weight, what stands before the context, what stands between it and the answer). The first is XL3M's own template
# within the chat template; the others are what LangChain and LlamaIndex send by default, and plain forms.
_LC = (
    "Use the following pieces of context to answer the question at the end. If you don't know the answer, just say "
    "that you don't know, don't try to make up an answer.\n\n"
)
_LC_CHAT = (
    "<|system|>Use the following pieces of context to answer the user's question. \nIf you don't know the answer, "
    "just say that you don't know, don't try to make up an answer.\n----------------\n"
)
_LC_RAG = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved context to answer the "
    "question. If you don't know the answer, just say that you don't know. Use three sentences maximum and keep the "
    "answer concise."
)
_LI_SYSTEM = (
    "<|system|>You are an expert Q&A system that is trusted around the world.\nAlways answer the query using the "
    "provided context information, and not prior knowledge.\nSome rules to follow:\n1. Never directly reference the "
    "given context in your answer.\n2. Avoid statements like 'Based on the context, ...' or 'The context information "
    "...' or anything along those lines."
)
_LI = "Context information is below.\n---------------------\n"
_LI_END = (
    "\n---------------------\nGiven the context information and not prior knowledge, answer the query.\n"
    "Query: {q}\nAnswer: "
)
_LI_TREE = "Context information from multiple sources is below.\n---------------------\n"
_LI_TREE_END = (
    "\n---------------------\nGiven the information from multiple sources and not prior knowledge, answer the query.\n"
    "Query: {q}\nAnswer: "
)
SHAPES: tuple[tuple[int, str, str], ...] = (
    (40, "<|user|>", "\n\nQuestion: {q}<|assistant|>"),
    (18, "", "\n\nQuestion: {q}\nAnswer:"),
    (4, "<|user|>", "\n\n{q}<|assistant|>"),
    (3, "", "\n{q}\nAnswer:"),
    (3, "", "\n\n{q} Answer:"),
    (3, "<|system|>Answer from the text.<|user|>", "\n\nQuestion: {q}<|assistant|>"),
    (3, "<|system|>You are a helpful assistant.<|user|>", "\n\nQuestion: {q}<|assistant|>"),
    (3, "Answer the question based only on the following context:\n", "\n\nQuestion: {q}\n"),
    (3, "<|user|>Answer the question based only on the following context:\n", "\n\nQuestion: {q}<|assistant|>"),
    (3, _LC, "\n\nQuestion: {q}\nHelpful Answer:"),
    (3, _LC_CHAT, "<|user|>{q}<|assistant|>"),
    (2, "<|user|>" + _LC_RAG + "\nContext: ", "\nQuestion: {q}\nAnswer:<|assistant|>"),
    (3, _LI, _LI_END),
    (3, "<|user|>" + _LI, _LI_END + "<|assistant|>"),
    (2, _LI_SYSTEM + "<|user|>" + _LI, _LI_END + "<|assistant|>"),
    (2, _LI_TREE, _LI_TREE_END),
    (2, "<|user|>Context:\n", "\n\nQuery: {q}<|assistant|>"),
)
_SEPARATORS = ("\n\n", "\n\n", "\n", " ", "\n...\n", "\n[...]\n")
ABSENT_SHARE = 0.3
QUESTION_ROOM = 72  # tokens left for at least one question and its answer


@dataclass(slots=True)
class Row:
    """One training row, grown piece by piece."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)  # 0 for the context, then 1, 2, … per question
    weights: list[float] = field(default_factory=list)  # of predicting this token from those before it; <0: LM loss

    def extend(self, ids: Sequence[int], weight: float, block: int, position: int) -> None:
        """Append `ids` from `position` on."""
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self.blocks += [block] * len(ids)
        self.weights += [weight] * len(ids)


class ExampleMaker:
    """Draws training rows. One of these per process, each with its own seed."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, prose: Prose | None, rng: random.Random) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._bos = tokenizer.convert_tokens_to_ids(BOS)
        self._eos = tokenizer.eos_token_id
        self._vocabulary = len(tokenizer)
        self._prose = prose
        self._draw = corpus.with_sentences(prose)
        self._rng = rng

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, no special token added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def answer_ids(self, fact: Fact) -> list[int] | None:
        """The value as the tokens it has in its statement; None where no token boundary falls on its edges."""
        encoded = self._tokenizer.encode(fact.statement, add_special_tokens=False)
        end = fact.value_at + len(fact.value)
        inside = [i for i, (a, b) in enumerate(encoded.offsets) if a < end and b > fact.value_at]
        ids = [encoded.ids[i] for i in inside]
        return ids if self._tokenizer.decode(ids).strip() == fact.value else None

    def repeated(self, length: int) -> Row:
        """Random tokens said over and over, which teaches nothing but copying."""
        rng = self._rng
        row = Row()
        row.extend([self._bos], 0.0, 0, 0)
        once = [rng.randrange(8, self._vocabulary) for _ in range(rng.randint(8, max(9, length // 3)))]
        row.extend(once, 0.0, 0, 1)
        while len(row.ids) < length:
            row.extend(once[: length - len(row.ids)], -1.0, 0, len(row.ids))
        return row

    def row(self, length: int, context_tokens: int) -> Row:
        """A context of about `context_tokens` and as many questions as fit in `length` tokens."""
        rng = self._rng
        _, before, after = rng.choices(SHAPES, [weight for weight, _, _ in SHAPES])[0]
        if len(self.encode(before)) + context_tokens + QUESTION_ROOM > length:
            _, before, after = SHAPES[0]
        row = Row()
        row.extend([self._bos, *self.encode(before)], 0.0, 0, 0)
        ids, present, absent = self.context(context_tokens)
        row.extend(ids, -1.0, 0, len(row.ids))
        self._ask(row, length, after, present, absent)
        return row

    def _ask(self, row: Row, length: int, after: str, present: list[Fact], absent: list[Fact]) -> None:
        rng, start, block, misses = self._rng, len(row.ids), 0, 0
        waiting: list[Fact] = []
        while misses < 4:
            absence = not present or rng.random() < ABSENT_SHARE
            waiting = waiting or rng.sample(present, len(present))
            fact = self.missing(present, absent) if absence else waiting.pop()
            answer = fact and self.answer_ids(fact)
            question = self.encode(after.format(q=rng.choice(fact.questions))) if fact else []
            if not answer or len(row.ids) + len(question) + len(answer) + 1 > length:
                misses += 1
                continue
            block += 1
            row.extend(question, -1.0, block, start)
            row.extend([*answer, self._eos], 1.0, block, start + len(question))

    def missing(self, present: list[Fact], absent: list[Fact]) -> Fact | None:
        """A fact that the context does not hold: cut off at its edge, or a look-alike, or of any kind; seldom None."""
        rng = self._rng
        draw = rng.random()
        if absent and draw < 0.3:
            fact = rng.choice(absent)
        elif present and draw < 0.85:
            fact = rng.choice(present).like(rng)
        else:
            fact = self._draw(rng)
        shown = ((other.family, other.identity) for other in present)
        return None if (fact.family, fact.identity) in shown else fact

    def context(self, tokens: int) -> tuple[list[int], list[Fact], list[Fact]]:
        """Token ids, the facts wholly inside, and facts that are not inside."""
        rng = self._rng
        pieces = 1 if tokens < 150 or rng.random() < 0.4 else rng.randint(2, 4)
        size = (tokens - 4 * (pieces - 1)) // pieces
        density = rng.choice((12, 25, 40, 70, 120))  # tokens per fact, about
        count, near = max(1, int(1.3 * tokens / density)), rng.choice((0.2, 0.5, 0.8))
        facts = corpus.unambiguous(rng, [], count, near, self._draw)
        separator = self.encode(rng.choice(_SEPARATORS))
        ids: list[int] = []
        present: list[Fact] = []
        for k in range(pieces):
            if k:
                ids += separator
            found, kept = self._piece(facts[k::pieces], size, density)
            ids += found
            present += kept
        shown = {fact.identity for fact in present}
        # A fact cut off between statements of which the last would do has an answer, but not its own.
        return (
            ids,
            present,
            [fact for fact in facts if fact.identity not in shown and len(fact.parts) in (0, fact.hops)],
        )

    def _piece(self, facts: list[Fact], size: int, density: int) -> tuple[list[int], list[Fact]]:
        rng = self._rng
        prose = self._prose if rng.random() < 0.6 else None
        characters = max(0, int(size * 4.2 * (1 - 14 / density)))
        sentences = corpus.filler(rng, characters, prose) if characters > 40 else []
        text, planted = corpus.weave(rng, sentences, facts)
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        ids, offsets = encoded.ids, encoded.offsets
        start = rng.randint(0, max(0, len(ids) - size))
        stop = min(len(ids), start + size)
        if start == stop:
            return [], []
        low, high = offsets[start][0], offsets[stop - 1][1]
        return ids[start:stop], [p.fact for p in planted if _inside(p, low, high)]


def _inside(planted: Planted, low: int, high: int) -> bool:
    """Whether all that the answer needs stands between two offsets; the value's statement counts up to its value."""
    fact = planted.fact
    spans = {start: start + len(text) for start, text in zip(planted.starts, fact.statements, strict=True)}
    spans[planted.start] = planted.start + fact.value_at + len(fact.value)
    return all(low <= start and end <= high for start, end in spans.items())


def collate(rows: Sequence[Row], pad: int, length: int) -> dict[str, torch.Tensor]:
    """Stack rows, padded on the right to `length`.

    Returns:
        `input_ids`, `position_ids`, `blocks`, `weights`: [rows, length], as in `Row`; the block of padding is -1.
    """

    def stacked(name: str, fill: float, dtype: torch.dtype) -> torch.Tensor:
        values = (getattr(row, name) for row in rows)
        return torch.tensor([value + [fill] * (length - len(value)) for value in values], dtype=dtype)

    return {
        "input_ids": stacked("ids", pad, torch.long),
        "position_ids": stacked("positions", 0, torch.long),
        "blocks": stacked("blocks", -1, torch.int16),
        "weights": stacked("weights", 0.0, torch.float32),
    }


def sees(blocks: torch.Tensor) -> torch.Tensor:
    """What each token of rows sees: what stands before it in its own block and in the context.

    Args:
        blocks: [rows, length], as in `Row`.

    Returns:
        [rows, 1, length, length], boolean, true where a query (third axis) may look at a key (fourth).
    """
    own = (blocks[:, :, None] == blocks[:, None, :]) | (blocks[:, None, :] == 0)
    causal = torch.ones(blocks.shape[1], blocks.shape[1], dtype=torch.bool, device=blocks.device).tril()
    return (own & causal)[:, None]
