"""The comparison behind `xl3m bench --peers`: what it costs others to go through the text that XL3M selects from.

All read the same text for the same question with the same model in one run; where XL3M leaves the model early, the
others run all its layers. XL3M is timed end to end, and once more where BM25 leaves it but a few segments to read; the
peers that take passages get the engine's segments as a gift: the time of cutting them is not counted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import torch

from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.benchmarks.speed import local_model
from xl3m_integrations.demo import make_haystack
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import SettingError, XL3MError
from xl3m_integrations.evaluation.asking import NotApplicable
from xl3m_integrations.evaluation.plots import new_figure, save_figure
from xl3m_integrations.evaluation.rankers import llmlingua_scores, require
from xl3m_integrations.prefilter import BM25, bm25_scores
from xl3m_integrations.types import Segment

PREFILTERED = 256  # segments that BM25 leaves
SHORTEST = 1_000  # tokens; also the length that every peer warms up on
_FAILURES = (XL3MError, ImportError, RuntimeError, MemoryError)  # torch says RuntimeError where memory ends


@dataclass(frozen=True)
class Case:
    """A question on a text, cut once for all peers that take passages.

    Attributes:
        xl3m: The engine.
        backend: Its local model.
        text: The text.
        question: The question.
        tokens: Length of the text in tokens.
    """

    xl3m: XL3M
    backend: TransformersBackend
    text: str
    question: str
    tokens: int

    @classmethod
    def of(cls, xl3m: XL3M, tokens: int, seed: int) -> Case:
        """A generated text of at least `tokens` tokens with one fact, which the question asks for."""
        haystack = make_haystack(xl3m, tokens, 1, seed)
        length = xl3m.scorer.tokenizer.count(haystack.text)
        return cls(xl3m, local_model(xl3m), haystack.text, haystack.needles[0][1].question, length)

    @cached_property
    def segments(self) -> list[Segment]:
        """The engine's segments of the text."""
        return list(self.xl3m.segmenter.segments([self.text]))

    @cached_property
    def passages(self) -> list[str]:
        """Their texts."""
        return [segment.text for segment in self.segments]


@dataclass(frozen=True)
class Peer:
    """Somebody who goes through a text.

    Attributes:
        name: Shown name.
        read: Goes through the text of a case; what it returns is not used.
        growth: Power of the length that the cost grows with.
        needs: (module, feature, extra) to be installed; None needs nothing.
    """

    name: str
    read: Callable[[Case], object]
    growth: int = 1
    needs: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """What one peer took at one length.

    Attributes:
        peer: Its name.
        length: The length that was asked for, in tokens.
        tokens: Tokens of the text.
        seconds: Median of the repeats.
        tokens_per_second: Tokens of the text in a second.
        ratio: Its seconds over those of XL3M's selection.
    """

    peer: str
    length: int
    tokens: int
    seconds: float
    tokens_per_second: float
    ratio: float


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A peer that was not timed, from a length on.

    Attributes:
        peer: Its name.
        from_length: The first length it was not timed at, in tokens.
        reason: Why.
    """

    peer: str
    from_length: int
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` measured.

    Attributes:
        settings: Model, machine and choices that the figures hold for.
        timings: By length, XL3M first.
        left_out: Who was not timed, and why.
    """

    settings: dict[str, Any]
    timings: tuple[Timing, ...]
    left_out: tuple[LeftOut, ...]

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False)


def compare(
    xl3m: XL3M,
    lengths: Sequence[int],
    *,
    seed: int,
    repeats: int = 1,
    time_limit: float = 60.0,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Time XL3M's selection and its peers in turn, after a warm-up, on texts of each length.

    Args:
        xl3m: An engine on a local model.
        lengths: Lengths of the texts in tokens.
        seed: Of the texts.
        repeats: How often each is timed.
        time_limit: Seconds. A peer of which one reading would take longer, by its pace at the length before (or in the
            warm-up) and the way its cost grows, is left out from that length on. XL3M never is.
        progress: Called with what is being done.

    Raises:
        SettingError: The engine's scorer is no local model, or a number is out of its range.
    """
    if not lengths or min(lengths) < SHORTEST:
        raise SettingError(f"lengths is {list(lengths)}; name one or more of at least {SHORTEST:,} tokens.")
    if repeats < 1 or not time_limit > 0:
        raise SettingError(f"repeats is {repeats} and time_limit {time_limit}; at least 1 and above 0 are needed.")
    race = _Race(xl3m, seed, repeats, time_limit, progress or (lambda label: None))
    race.warm_up(min(lengths))
    for length in sorted(set(lengths)):
        race.run(length)
    return Comparison(_settings(xl3m, seed, repeats, time_limit), tuple(race.timings), tuple(race.left_out))


class _Race:
    """XL3M and its peers, length after length; who is too slow or fails drops out."""

    def __init__(self, xl3m: XL3M, seed: int, repeats: int, time_limit: float, progress: Callable[[str], None]) -> None:
        self.xl3m, self.seed, self.repeats, self.time_limit, self.progress = xl3m, seed, repeats, time_limit, progress
        self.timings: list[Timing] = []
        self.left_out: list[LeftOut] = []
        self.pace: dict[Peer, tuple[int, float]] = {}  # of who still runs: (tokens, seconds) of the last reading

    def warm_up(self, length: int) -> None:
        """Let each read a short text, to note its pace; who cannot is left out from `length` on."""
        case = Case.of(self.xl3m, SHORTEST, self.seed)
        for peer in (_XL3M, *PEERS):
            self.progress(f"{peer.name}, warm-up")
            try:
                if peer.needs:
                    require(*peer.needs)
                _seconds(peer, case)
                self.pace[peer] = (case.tokens, _seconds(peer, case))
            except _FAILURES as error:
                self.drop(peer, length, error)

    def run(self, length: int) -> None:
        """Time who is left on a text of `length` tokens."""
        case = Case.of(self.xl3m, length, self.seed)
        self.drop_slow(case, length)
        taken: dict[Peer, list[float]] = {peer: [] for peer in self.pace}
        for _ in range(self.repeats):
            for peer in list(self.pace):
                self.progress(f"{peer.name}, {length:,} tokens")
                try:
                    taken[peer].append(_seconds(peer, case))
                except _FAILURES as error:
                    self.drop(peer, length, error)
        self.pace = {peer: (case.tokens, median(taken[peer])) for peer in self.pace}
        own = self.pace[_XL3M][1]
        for peer, (tokens, seconds) in self.pace.items():
            self.timings.append(Timing(peer.name, length, tokens, seconds, tokens / seconds, seconds / own))

    def drop_slow(self, case: Case, length: int) -> None:
        """Leave out whom the case would take longer than the time limit."""
        for peer, (tokens, seconds) in list(self.pace.items()):
            expected = seconds * (case.tokens / tokens) ** peer.growth
            if peer is not _XL3M and expected > self.time_limit:
                reason = (
                    f"{tokens:,} tokens took {seconds:.3g} s, so that {case.tokens:,} would take about "
                    f"{expected:,.0f} s, more than the time limit of {self.time_limit:g} s."
                )
                self.drop(peer, length, NotApplicable(reason))

    def drop(self, peer: Peer, length: int, error: Exception) -> None:
        """Leave a peer out from `length` on; where it is XL3M itself, the comparison fails."""
        if peer is _XL3M:
            raise error
        self.pace.pop(peer, None)
        reason = str(error) if isinstance(error, XL3MError) else f"{type(error).__name__}: {error}"
        self.left_out.append(LeftOut(peer.name, length, reason))


def _seconds(peer: Peer, case: Case) -> float:
    _ = case.passages  # cut before the clock runs
    began = time.perf_counter()
    peer.read(case)
    if case.backend.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _settings(xl3m: XL3M, seed: int, repeats: int, time_limit: float) -> dict[str, Any]:
    backend = local_model(xl3m)
    return {
        "model": type(backend.model).__name__,
        "parameters": sum(parameter.numel() for parameter in backend.model.parameters()),
        "exit_layer": backend.exit_layer,
        "window": backend.window,
        "segment_tokens": xl3m.segmenter.segment_tokens,
        "measure": xl3m.measure.name,
        "prefilter": PREFILTERED,
        "device": str(backend.device),
        "dtype": str(backend.model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "seed": seed,
        "repeats": repeats,
        "time_limit": time_limit,
    }


# ---------------------------------------------------------------------------------------------- the peers
@torch.no_grad()
def plain_loop(case: Case) -> list[float]:
    """Entropies of the next token as a user would write it: a segment at a time, logits of every position."""
    prompt, entropies = case.backend.prompt(case.question), []
    for segment in case.segments:
        ids = torch.tensor([[*prompt.before, *segment.ids, *prompt.after]], device=case.backend.device)
        logits = case.backend.model(input_ids=ids).logits
        probabilities = torch.softmax(logits[0, -1].float(), dim=-1)
        entropies.append(float(torch.special.entr(probabilities).sum()))
    return entropies


def full_context(case: Case) -> None:
    """One forward pass over the whole text, logits of the last position alone, no keys and values kept.

    Rotary positions go on beyond the model's window: the cost there is real, though the output is of no use.

    Raises:
        NotApplicable: The model has no such positions, or memory does not suffice.
    """
    backend = case.backend.whole
    prompt = backend.prompt(case.question)
    ids = [*prompt.before, *backend.tokenizer.ids(case.text), *prompt.after]
    config = backend.model.config.get_text_config()
    if len(ids) > backend.window and getattr(config, "rope_parameters", None) is None:
        raise NotApplicable(f"The prompt has {len(ids):,} tokens, but the model has {backend.window:,} positions.")
    needed, there = _bytes_needed(config, len(ids)), _bytes_there(backend.device)
    if needed > there:
        raise NotApplicable(f"It would take about {needed / 1e9:,.0f} GB of memory; there are {there / 1e9:,.0f}.")
    backend.logits(torch.tensor([ids], device=backend.device), 1, use_cache=False)


def _bytes_needed(config: Any, tokens: int) -> int:
    """Of a layer's activations in float32, and of its attention matrix where the implementation makes one."""
    width = max(config.hidden_size, getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    matrix = 2 * config.num_attention_heads * tokens**2 if config._attn_implementation == "eager" else 0
    return int(4 * (8 * width * tokens + matrix))


def _bytes_there(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


_XL3M = Peer("xl3m", lambda case: case.xl3m.select(case.text, case.question))
PEERS = (
    Peer(
        "xl3m after bm25",
        lambda case: case.xl3m.select(case.text, case.question, prefilter=BM25(PREFILTERED)),
        needs=("bm25s", "The prefilter BM25", "bm25"),
    ),
    Peer(
        "llmlingua",
        lambda case: llmlingua_scores(case.xl3m, case.passages, case.question),
        needs=("llmlingua", "LongLLMLingua's own package", "llmlingua"),
    ),
    Peer("plain loop", plain_loop),
    Peer("full context", full_context, growth=2),
    Peer("bm25", lambda case: bm25_scores(case.passages, case.question), needs=("bm25s", "BM25", "eval")),
)


# ---------------------------------------------------------------------------------------------- the picture
def plot(comparison: Comparison, path: Path) -> Path:
    """Write a PNG of seconds against length, both in powers of ten, whole or not at all.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    drawn, axes = new_figure(7.5, 4.5)
    for name in dict.fromkeys(timing.peer for timing in comparison.timings):
        own = [timing for timing in comparison.timings if timing.peer == name]
        width = 2.2 if name == _XL3M.name else 1.2
        axes.plot([one.tokens for one in own], [one.seconds for one in own], marker="o", linewidth=width, label=name)
    settings = comparison.settings
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("length, tokens")
    axes.set_ylabel("seconds")
    axes.set_title(
        f"{settings['parameters']:,} parameters, {settings['device']}, {settings['dtype']}, "
        f"{settings['threads']} threads, median of {settings['repeats']}",
        fontsize=9,
    )
    axes.legend(fontsize=8)
    return save_figure(drawn, path)
