"""One question put to many segments: batches, logits where they are needed, and what to do when the model fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xl3m_integrations.backends.base import Evidence
from xl3m_integrations.backends.batching import packed
from xl3m_integrations.certainty import Measure, Needs, Observation
from xl3m_integrations.errors import InputError, ScoringError, XL3MError
from xl3m_integrations.prompts import QuestionPrompt
from xl3m_integrations.types import Segment

if TYPE_CHECKING:
    from xl3m_integrations.backends.transformers import TransformersBackend

LOGIT_BYTES = 256 << 20  # float32 logits of one batch, at most
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")


class ScoringPass:
    """One question put to many segments."""

    def __init__(self, backend: TransformersBackend, prompt: QuestionPrompt, measure: Measure) -> None:
        self._backend = backend
        self._prompt = prompt
        self._measure = measure
        self._needs: Needs = measure.needs
        self._batch_tokens = backend.batch_tokens
        # Logits are needed from the position before the question's first token to the last position.
        self._back = len(prompt.after) - prompt.question.start if self._needs.question else 0
        self._max_rows = max(1, LOGIT_BYTES // (4 * backend.vocabulary * (1 + self._back)))
        self._baseline: Tensor | None = None  # computed once it is known that the question fits the window

    def evidence(self, segments: Sequence[Segment]) -> list[Evidence]:
        """Evidence of each segment, in order."""
        lengths = [len(segment.ids) + self._prompt.overhead for segment in segments]
        self._require_fit(max(lengths))
        if self._needs.baseline and self._baseline is None:
            self._baseline = self._question_without_segment()
        found: list[Evidence] = [()] * len(segments)
        exact = self._needs.answer_tokens > 0
        for rows in packed(lengths, self._batch_tokens, max_rows=self._max_rows, exact=exact):
            for row, evidence in zip(rows, self._batch([segments[row] for row in rows]), strict=True):
                found[row] = evidence
        return found

    def _require_fit(self, longest: int) -> None:
        room = self._backend.window - self._needs.answer_tokens
        if longest > room:
            raise InputError(
                f"The question takes {self._prompt.overhead} tokens with its template, and a segment up to "
                f"{longest - self._prompt.overhead}: {longest} together, but the model's window is "
                f"{self._backend.window} tokens. Shorten the question, or lower segment_tokens."
            )

    def _batch(self, segments: list[Segment]) -> list[Evidence]:
        try:
            return self._observed(segments)
        except XL3MError:
            raise
        except Exception as error:
            failed = error
        if len(segments) == 1:
            raise scoring_error(failed, f"{_name(segments[0])} with the question") from failed
        if _is_out_of_memory(failed):
            self._batch_tokens = max(1, self._batch_tokens // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        # Halved whatever it was: less memory is needed, or the segment at which the model fails is found.
        half = len(segments) // 2
        return self._batch(segments[:half]) + self._batch(segments[half:])

    def _observed(self, segments: list[Segment]) -> list[Evidence]:
        seen = self._observe([segment.ids for segment in segments])
        broken = seen.next.isnan().any(1)
        if broken.any():
            segment = segments[int(broken.nonzero()[0, 0])]
            raise ScoringError(
                f"The model's logits are not numbers (NaN) after {_name(segment)}; load the model with "
                "dtype='float32' (float16 overflows in some models), or check its weights."
            )
        evidence = self._measure.evidence(seen)
        return [tuple(row) for row in evidence.tolist()]

    def _observe(self, rows: Sequence[Sequence[int]]) -> Observation:
        needs, device = self._needs, self._backend.device
        before, after = self._prompt.before, self._prompt.after
        lengths = torch.tensor([len(row) + self._prompt.overhead for row in rows])
        longest, shortest = int(lengths.max()), int(lengths.min())
        ids = torch.tensor(
            [[*before, *row, *after] + [0] * (longest - len(row) - self._prompt.overhead) for row in rows]
        )
        first = shortest - 1 - self._back
        keep: Tensor | int = 1 + self._back
        if longest != shortest:
            keep = torch.arange(max(first, 0), longest, device=device)
        cache = {"use_cache": needs.answer_tokens > 0}
        output = self._backend.logits(ids.to(device), keep, **cache)
        logits = output.logits
        # [B, back + 1]: for each row, where its needed positions lie among the kept ones.
        places = (lengths - shortest)[:, None] + torch.arange(logits.shape[1] - (longest - shortest))
        if longest != shortest:
            logits = logits.gather(1, places.to(device)[..., None].expand(-1, -1, logits.shape[2]))
        answer, answered = self._answer(output, logits[:, -1]) if needs.answer_tokens else (None, None)
        return Observation(
            next=logits[:, -1].float().log_softmax(-1),
            question=self._question(logits) if needs.question else None,
            baseline=self._baseline,
            answer=answer,
            answered=answered,
        )

    def _question(self, logits: Tensor) -> Tensor:
        """[B, Q] log-probabilities of the question's tokens from logits at the last `back + 1` positions."""
        asked = torch.tensor(self._prompt.after[self._prompt.question], device=logits.device)
        at = logits[:, : len(asked)].float()
        targets = asked.expand(len(at), -1)[..., None]
        return at.gather(2, targets)[..., 0] - at.logsumexp(-1)

    def _question_without_segment(self) -> Tensor:
        """[Q] log-probabilities of the question's tokens where no segment stands before them."""
        # Where nothing at all stands before the question, its first token needs something to be predicted from.
        nothing = () if self._prompt.before or self._prompt.question.start else (self._backend.tokenizer.eos_id or 0,)
        try:
            seen = self._observe([nothing]).question
        except Exception as error:
            raise scoring_error(error, "the question alone") from error
        assert seen is not None
        return seen[0]

    def _answer(self, output: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n, V] log-probabilities along the greedy answer, and [B, n] whether the answer still goes on."""
        steps, going = (
            [logits.float().log_softmax(-1)],
            [torch.ones(len(logits), dtype=torch.bool, device=logits.device)],
        )
        eos = self._backend.tokenizer.eos_id
        for _ in range(self._needs.answer_tokens - 1):
            chosen = steps[-1].argmax(-1)
            going.append(going[-1] if eos is None else going[-1] & (chosen != eos))
            output = self._backend.logits(chosen[:, None], 1, use_cache=True, past_key_values=output.past_key_values)
            steps.append(output.logits[:, -1].float().log_softmax(-1))
        return torch.stack(steps, 1), torch.stack(going, 1)


def _name(segment: Segment) -> str:
    where = f" of document {segment.document}" if segment.document else ""
    return f"segment {segment.index}{where} (characters {segment.start} to {segment.end}, {len(segment.ids)} tokens)"


def scoring_error(error: Exception, what: str) -> ScoringError:
    """What to tell the user when the model failed to read `what`."""
    if _is_out_of_memory(error):
        return ScoringError(
            f"Memory does not suffice to read {what}; lower segment_tokens, or use a smaller model or dtype."
        )
    return ScoringError(
        f"The model failed to read {what}: {type(error).__name__}: {error}. Check that model and tokenizer belong "
        "together."
    )


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY)
