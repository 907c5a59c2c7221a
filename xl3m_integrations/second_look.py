"""The second look: the best segments are read again, up to the answer's end, and each of their sentences by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xl3m_integrations.backends.base import Scorer
from xl3m_integrations.certainty import Measure, SecondLook
from xl3m_integrations.segmentation import sentences
from xl3m_integrations.types import Certainty, Segment


@dataclass(frozen=True, slots=True)
class SeenAgain:
    """What a second look saw of N segments and their M sentences.

    Attributes:
        look: How it looked.
        segments: The segments.
        sentences: Their sentences, as segments of the same documents.
        owners: [M], the place in `segments` of each sentence's segment.
        evidence: [N, 2], see `SecondLook.evidence`.
        by_sentence: [M, 1 + Q], see `SentenceLook.evidence`.
        best: [N], of each segment the sentence of least doubt.
    """

    look: SecondLook
    segments: Sequence[Segment]
    sentences: Sequence[Segment]
    owners: Tensor
    evidence: Tensor
    by_sentence: Tensor
    best: Tensor

    def combined(self, first: Tensor) -> Tensor:
        """[N] final scores, from those of the first look; see `SecondLook.combined`."""
        return self.look.combined(first, self.evidence, self.look.sentences.doubt(self.by_sentence)[self.best])

    def certainty(self, place: int) -> Certainty:
        """How certain it is that the segment at `place` holds the answer."""
        return self.look.certainty(float(self.evidence[place, 0]), self.figures()[place]["regret"])

    def figures(self) -> list[dict[str, float]]:
        """For each segment what its score was made from, by name, in nats."""
        seen, regrets = self.by_sentence[self.best, 0], self.look.sentences.regret(self.by_sentence)[self.best]
        rows = zip(self.evidence[:, 1].tolist(), seen.tolist(), regrets.tolist(), strict=True)
        return [dict(zip(("answer_entropy", "sentence_entropy", "regret"), row, strict=True)) for row in rows]

    def bridge(self) -> tuple[int, Segment]:
        """The sentence that explains the question best, after the place of its segment."""
        best = int(self.look.sentences.regret(self.by_sentence).argmin())
        return int(self.owners[best]), self.sentences[best]


def look_again(look: SecondLook, scorer: Scorer, question: str, segments: Sequence[Segment]) -> SeenAgain | None:
    """Read segments, each with as much of the answer as the window has room for, and their sentences.

    Returns:
        None where there are no segments, or no room for any of the answer.
    """
    room = scorer.window - scorer.overhead(question) - max((len(segment.ids) for segment in segments), default=0)
    if room <= 0 or not segments:
        return None
    look = replace(look, answer_tokens=min(room, look.answer_tokens))
    parts = [_sentences(segment, scorer, look.most_sentences) for segment in segments]
    owners = torch.tensor([place for place, own in enumerate(parts) for _ in own])
    every = [sentence for own in parts for sentence in own]
    by_sentence = _evidence(scorer, every, question, look.sentences)
    doubt = look.sentences.doubt(by_sentence)
    least = torch.full((len(segments),), torch.inf, dtype=doubt.dtype).scatter_reduce(0, owners, doubt, "amin")
    best = torch.empty(len(segments), dtype=torch.long)
    reached = (doubt == least[owners]).nonzero()[:, 0].flip(0)  # so that of equals the first stays
    best[owners[reached]] = reached
    return SeenAgain(look, segments, every, owners, _evidence(scorer, segments, question, look), by_sentence, best)


def _sentences(segment: Segment, scorer: Scorer, most: int) -> list[Segment]:
    spans = sentences(segment.text, most) or [(0, len(segment.text))]
    encoded = scorer.tokenizer.encode([segment.text[start:end] for start, end in spans])
    return [
        replace(
            segment, start=segment.start + start, end=segment.start + end, text=segment.text[start:end], ids=one.ids
        )
        for (start, end), one in zip(spans, encoded, strict=True)
    ]


def _evidence(scorer: Scorer, segments: Sequence[Segment], question: str, measure: Measure) -> Tensor:
    return torch.tensor([found for _, found in scorer.evidence(segments, question, measure)], dtype=torch.float64)
