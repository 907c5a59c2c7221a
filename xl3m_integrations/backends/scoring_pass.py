"""One question put to many segments: batches, logits where they are needed, and what to do when the model fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from xl3m_integrations.backends.base import Evidence
from xl3m_integrations.backends.batching import packed
from xl3m_integrations.certainty import Measure, Needs, Observation
from xl3m_integrations.errors import InputError, ScoringError, SettingError, XL3MError
from xl3m_integrations.prompts import QuestionPrompt
from xl3m_integrations.tokens import TextTokenizer
from xl3m_integrations.types import Segment

T = TypeVar("T")

LOGIT_BYTES = 256 << 20  # float32 logits of one batch, at most
CACHED_BYTES = 2 << 20  # float32 log-probabilities that a CPU turns to at a time
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")


class LocalModel(Protocol):
    """What a pass needs of a model in this process.

    Attributes:
        window: Tokens that it reads at most.
        batch_tokens: Tokens of one forward pass, at most.
        vocabulary: Numbers in the logits of a position.
        device: Where it is.
        tokenizer: Its tokenizer.
    """

    window: int
    batch_tokens: int
    vocabulary: int
    device: torch.device
    tokenizer: TextTokenizer

    def logits(self, ids: Tensor, keep: Tensor | int, **cache: Any) -> Any:
        """What the model gives for rows of ids [B, T], logits at the kept positions; see `TransformersBackend`."""


class ScoringPass:
    """One question put to many segments."""

    def __init__(self, backend: LocalModel, prompt: QuestionPrompt, measure: Measure) -> None:
        self._backend = backend
        self.prompt = prompt
        self._measure = measure
        self._needs: Needs = measure.needs
        self._batch_tokens = backend.batch_tokens
        # Logits are needed from the position before the question's first token to the last position.
        self.back = len(prompt.after) - prompt.question.start if self._needs.question else 0
        self._max_rows = max(1, LOGIT_BYTES // (4 * backend.vocabulary * (1 + self.back)))
        self._baseline: Tensor | None = None  # computed once it is known that the question fits the window

    def evidence(self, segments: Sequence[Segment]) -> list[Evidence]:
        """Evidence of each segment, in order."""
        lengths = [len(segment.ids) + self.prompt.overhead for segment in segments]
        self.prepare(max(lengths) - self.prompt.overhead)
        found: list[Evidence] = [()] * len(segments)
        exact = self._needs.answer_tokens > 0
        for rows in packed(lengths, self._batch_tokens, max_rows=self._max_rows, exact=exact):
            batch = in_halves(self._batch, [segments[row] for row in rows], self._relieve)
            for row, evidence in zip(rows, batch, strict=True):
                found[row] = evidence
        return found

    def prepare(self, longest: int) -> None:
        """Make ready for segments of up to `longest` tokens.

        Raises:
            InputError: Such a segment and the question do not fit the window together.
        """
        self._require_fit(longest + self.prompt.overhead)
        if self._needs.baseline and self._baseline is None:
            self._baseline = self._question_without_segment()

    def _relieve(self) -> None:
        self._batch_tokens = max(1, self._batch_tokens // 2)

    def _require_fit(self, longest: int) -> None:
        room = self._backend.window - self._needs.answer_tokens
        if longest > room:
            raise InputError(
                f"The question takes {self.prompt.overhead} tokens with its template, and a segment up to "
                f"{longest - self.prompt.overhead}: {longest} together, but the model's window is "
                f"{self._backend.window} tokens. Shorten the question, or lower segment_tokens."
            )

    def _batch(self, segments: list[Segment]) -> list[Evidence]:
        output, logits = self._read([segment.ids for segment in segments])
        return self.evidence_of(segments, output, logits)

    def evidence_of(self, segments: Sequence[Segment], output: Any, logits: Tensor) -> list[Evidence]:
        """Evidence of each segment from the model's output after the question.

        Args:
            segments: B segments.
            output: The model's output, with what it continues from where the measure looks at the answer.
            logits: [B, back + 1, V] logits at the last positions.

        Raises:
            ScoringError: They are not numbers.
        """
        seen = self._observation(output, logits)
        broken = seen.next.isnan().any(1)
        if broken.any():
            segment = segments[int(broken.nonzero()[0, 0])]
            raise ScoringError(
                f"The model's logits are not numbers (NaN) after {_name(segment)}; load the model with "
                "dtype='float32' (float16 overflows in some models), or check its weights."
            )
        evidence = self._measure.evidence(seen)
        columns = self._measure.columns
        if evidence.dim() != 2 or len(evidence) != len(segments) or (columns and evidence.shape[1] != len(columns)):
            raise SettingError(
                f"The measure {self._measure.name!r} gave evidence of shape {list(evidence.shape)} for {len(segments)} "
                f"segments; it must be [{len(segments)}, {len(columns) or 'any'}], a number for each of its columns."
            )
        return [tuple(row) for row in evidence.tolist()]

    def _read(self, rows: Sequence[Sequence[int]]) -> tuple[Any, Tensor]:
        """The model's output on whole sub-contexts, and the [B, back + 1, V] logits at their last positions."""
        device = self._backend.device
        before, after = self.prompt.before, self.prompt.after
        lengths = torch.tensor([len(row) + self.prompt.overhead for row in rows])
        longest, shortest = int(lengths.max()), int(lengths.min())
        ids = torch.tensor(
            [[*before, *row, *after] + [0] * (longest - len(row) - self.prompt.overhead) for row in rows]
        )
        first = shortest - 1 - self.back
        keep: Tensor | int = 1 + self.back
        if longest != shortest:
            keep = torch.arange(max(first, 0), longest, device=device)
        output = self._backend.logits(ids.to(device), keep, use_cache=self._needs.answer_tokens > 0)
        logits = output.logits
        # [B, back + 1]: for each row, where its needed positions lie among the kept ones.
        places = (lengths - shortest)[:, None] + torch.arange(logits.shape[1] - (longest - shortest))
        if longest != shortest:
            # Whole rows of the flat logits: on a CPU ten times as fast as gathering number by number.
            flat = places + torch.arange(len(rows))[:, None] * logits.shape[1]
            logits = logits.flatten(0, 1).index_select(0, flat.flatten().to(device)).unflatten(0, flat.shape)
        return output, logits

    def _observation(self, output: Any, logits: Tensor) -> Observation:
        needs = self._needs
        answer, answered = self._answer(output, logits[:, -1]) if needs.answer_tokens else (None, None)
        return Observation(
            next=logits[:, -1].log_softmax(-1, dtype=torch.float32),
            question=self._question(logits) if needs.question else None,
            baseline=self._baseline,
            answer=answer,
            answered=answered,
        )

    def _question(self, logits: Tensor) -> Tensor:
        """[B, Q] log-probabilities of the question's tokens from logits at the last `back + 1` positions."""
        asked = torch.tensor(self.prompt.after[self.prompt.question], device=logits.device)
        rows = len(logits)
        if logits.device.type == "cpu":  # as many at a time as stay in the cache
            rows = max(1, CACHED_BYTES // (4 * logits.shape[2] * max(1, len(asked))))
        found = logits.new_empty(len(logits), len(asked), dtype=torch.float32)
        for first in range(0, len(logits), rows):
            some = slice(first, first + rows)
            # One fused kernel: five times as fast on a CPU as the logits less their logsumexp.
            log_probs = logits[some, : len(asked)].log_softmax(-1, dtype=torch.float32)
            found[some] = log_probs[:, torch.arange(len(asked), device=logits.device), asked]
        return found

    def _question_without_segment(self) -> Tensor:
        """[Q] log-probabilities of the question's tokens where no segment stands before them."""
        # Where nothing at all stands before the question, its first token needs something to be predicted from.
        nothing = () if self.prompt.before or self.prompt.question.start else (self._backend.tokenizer.eos_id or 0,)
        try:
            return self._question(self._read([nothing])[1])[0]
        except Exception as error:
            raise scoring_error(error, "the question alone") from error

    def _answer(self, output: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n, V] log-probabilities along the greedy answer, zero after its end; [B, n] whether it still goes on.

        n is the number of tokens that the measure asks for, or of the longest answer where all end earlier.
        """
        steps = [logits.log_softmax(-1, dtype=torch.float32)]
        going = [torch.ones(len(logits), dtype=torch.bool, device=logits.device)]
        eos = self._backend.tokenizer.eos_id
        past, rows = output.past_key_values, torch.arange(len(logits), device=logits.device)
        for _ in range(self._needs.answer_tokens - 1):
            chosen = steps[-1].argmax(-1)
            still = going[-1] if eos is None else going[-1] & (chosen != eos)
            if not still.any():
                break
            if 2 * int(still.sum()) <= len(rows) and _is_plain(past):
                # What has ended is read on with the rest, until leaving it out saves more than copying the others.
                past.batch_select_indices(still[rows].nonzero()[:, 0])
                rows = still.nonzero()[:, 0]
            output = self._backend.logits(chosen[rows, None], 1, use_cache=True, past_key_values=past)
            past = output.past_key_values
            found = steps[-1].new_zeros(steps[-1].shape)
            found[rows] = output.logits[:, -1].log_softmax(-1, dtype=torch.float32)
            steps.append(found)
            going.append(still)
        return torch.stack(steps, 1), torch.stack(going, 1)


def _is_plain(past: Any) -> bool:
    """Whether the model's state is keys and values alone, of which rows can be taken."""
    layers = getattr(past, "layers", ())
    return bool(layers) and all(isinstance(layer, DynamicLayer) for layer in layers)


def in_halves(
    work: Callable[[list[Segment]], list[T]], segments: list[Segment], relieve: Callable[[], None]
) -> list[T]:
    """What `work` makes of the segments; where it fails, of either half of them.

    Halved whatever the failure was: less memory is needed, or the segment at which the model fails is found.

    Args:
        work: Reads some segments in one batch.
        segments: The segments.
        relieve: Called where memory did not suffice, to make later batches smaller.

    Raises:
        ScoringError: One segment alone fails.
    """
    try:
        return work(segments)
    except XL3MError:
        raise
    except Exception as error:
        failed = error
    if len(segments) == 1:
        raise scoring_error(failed, f"{_name(segments[0])} with the question") from failed
    if is_out_of_memory(failed):
        relieve()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    half = len(segments) // 2
    return in_halves(work, segments[:half], relieve) + in_halves(work, segments[half:], relieve)


def _name(segment: Segment) -> str:
    where = f" of document {segment.document}" if segment.document else ""
    return f"segment {segment.index}{where} (characters {segment.start} to {segment.end}, {len(segment.ids)} tokens)"


def scoring_error(error: Exception, what: str) -> ScoringError:
    """What to tell the user when the model failed to read `what`."""
    if is_out_of_memory(error):
        return ScoringError(
            f"Memory does not suffice to read {what}; lower segment_tokens, or use a smaller model or dtype."
        )
    return ScoringError(
        f"The model failed to read {what}: {type(error).__name__}: {error}. Check that model and tokenizer belong "
        "together."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, whatever the device calls it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY)
