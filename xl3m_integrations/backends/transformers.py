"""Any Hugging Face causal language model as scorer and reader.

Work of a scoring pass: (segment + question + template tokens) x parameters x 2 FLOP, the head at the needed positions
only. Rows of a batch have (nearly) one length and are padded on the right, where a causal model cannot see it, so no
attention mask is made and the fused causal kernel runs.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from xl3m_integrations.backends.base import Evidence, one_by_one
from xl3m_integrations.backends.batching import TILE, looked_ahead
from xl3m_integrations.backends.compiling import compiled
from xl3m_integrations.backends.early_exit import first_layers
from xl3m_integrations.backends.fingerprint import fingerprint_of
from xl3m_integrations.backends.fused_layers import with_fused_layers
from xl3m_integrations.backends.kv_blocks import KVStore
from xl3m_integrations.backends.loading import warn_of_slow_numbers
from xl3m_integrations.backends.memory import keep_freed_memory
from xl3m_integrations.backends.prompting import Prompting, until
from xl3m_integrations.backends.scoring_pass import ScoringPass
from xl3m_integrations.backends.shared_pass import SharedPass, Sharing, head_of, sharing_of
from xl3m_integrations.backends.tuned_lens import TunedLens
from xl3m_integrations.certainty import Measure
from xl3m_integrations.errors import InputError, ModelLoadError, ScoringError, SettingError
from xl3m_integrations.types import Segment

BATCH_TOKENS = {"cpu": 8_000, "cuda": 32_768, "mps": 8_192}  # on a CPU more gains little and takes memory
LOOKAHEAD = 4  # batches' worth of segments that are sorted by length together; 2 to 16 were as fast
# A larger model is busy with few rows, and what it is given at a time ought to take seconds, not minutes: only between
# groups is progress told and can work be stopped.
LARGE = 50_000_000  # parameters
FUSED = (torch.bfloat16,)  # dtypes whose matrix products are so fast on CPUs that what stands between them matters
LARGE_BATCH_TOKENS = {"cpu": 2_000}
LARGE_LOOKAHEAD = 2


class TransformersBackend(Prompting):
    """Scorer and generator on one loaded model.

    Args:
        model: A causal language model, already loaded. It is put into evaluation mode and otherwise left alone. It is
            scored with as it is now: of a small one in bfloat16 on a CPU, layers may be copied; see
            `with_fused_layers`.
        tokenizer: Its tokenizer, with a fast backend.
        template: Text around segment and question, with `{segment}` and `{question}`; None takes the tokenizer's chat
            template, or a plain one where it has none.
        window: Tokens that the model reads at most; None takes it from the model's configuration.
        batch_tokens: Tokens of one forward pass; None takes a value that suits device and model.
        exit_layer: Decoder layers that scoring runs before the final norm and head; None runs all. What a measure wants
            of all layers (`Needs.all_layers`) and what is generated comes from the whole model.
        lens: Translates what the exit layer gives for norm and head (`fit_lens`); None leaves it as it is.
        compile: Whether to `torch.compile` the pass of one question over the segments: faster, for documents so long
            that it makes up for the compiling (tens of seconds, less once torch has cached it). It needs what
            torch.compile needs, on a CPU a C++ compiler.

    Raises:
        ModelLoadError: The tokenizer has no fast backend, or the window is unknown.
        SettingError: The template lacks a placeholder, a number is out of its range, or the model cannot be left early.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        template: str | None = None,
        window: int | None = None,
        batch_tokens: int | None = None,
        exit_layer: int | None = None,
        lens: TunedLens | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(tokenizer, template)
        self.model = model.eval()
        self.window = _window_of(model, tokenizer) if window is None else window
        self.device, dtype = next((weight.device, weight.dtype) for weight in model.parameters())
        warn_of_slow_numbers(dtype, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        large = sum(parameter.numel() for parameter in model.parameters()) >= LARGE
        sizes = BATCH_TOKENS | LARGE_BATCH_TOKENS if large else BATCH_TOKENS
        self.batch_tokens = sizes.get(self.device.type, 8_192) if batch_tokens is None else batch_tokens
        self.group_tokens = self.batch_tokens * (LARGE_LOOKAHEAD if large else LOOKAHEAD)
        small = self.device.type == "cpu" and not large  # where matrix products are the lesser part of the work
        self.tile = TILE if small else 1
        if self.window < 1 or self.batch_tokens < 1:
            raise SettingError(
                f"window is {self.window} and batch_tokens {self.batch_tokens}; both must be at least 1."
            )
        self.vocabulary = model.get_output_embeddings().weight.shape[0]
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.exit_layer, self.lens = exit_layer, lens
        fused = with_fused_layers if small and dtype in FUSED else lambda model: model
        self.scoring_model = self._forward = fused(self.model)
        self._leaves_early = False
        self.whole = copy(self)  # runs all layers
        cut = self.model if exit_layer is None else first_layers(self.model, exit_layer, lens)
        self._leaves_early = cut is not self.model
        if self._leaves_early:
            self.scoring_model = self._forward = fused(cut)
        if compile:
            self._forward = compiled(cut)  # torch's compiler fuses by itself, and takes no fused layers

    @cached_property
    def fingerprint(self) -> str:
        """See `Fingerprinted`: of weights, configuration, tokenizer, template, dtype and exit layer, read once."""
        whole = fingerprint_of(self.model, self.hf_tokenizer, self.template)
        if self.exit_layer is None or not self._leaves_early:
            return whole
        left = f"{whole}-exit-{self.exit_layer}"
        return left if self.lens is None else f"{left}-lens-{self.lens.digest(self.exit_layer)}"

    # ------------------------------------------------------------------------------------------ scoring
    def evidence(
        self, segments: Iterable[Segment], question: str, measure: Measure
    ) -> Iterator[tuple[Segment, Evidence]]:
        """See `Scorer.evidence`."""
        scoring = ScoringPass(self._reading(measure), [self.prompt(measure.asks(question))], measure)
        for group in looked_ahead(segments, self.group_tokens):
            yield from zip(group, scoring.evidence(group), strict=True)

    def evidence_each(self, asked: Sequence[tuple[str, Sequence[Segment]]], measure: Measure) -> list[list[Evidence]]:
        """See `evidence_each` of the base module."""
        prompts = [self.prompt(measure.asks(question)) for question, _ in asked]
        scoring = ScoringPass(self._reading(measure), prompts, measure)
        numbers = (number for number, (_, segments) in enumerate(asked) for _ in segments)
        found: list[Evidence] = []
        # In groups like those of `evidence`: one question alone is read in the same batches, and rounds alike.
        for group in looked_ahead((segment for _, segments in asked for segment in segments), self.group_tokens):
            found += scoring.evidence(group, list(islice(numbers, len(group))))
        of_each = iter(found)
        return [list(islice(of_each, len(segments))) for _, segments in asked]

    def evidence_many(
        self,
        segments: Iterable[Segment],
        questions: Sequence[str],
        measure: Measure,
        cache: KVStore | None = None,
    ) -> Iterator[tuple[Segment, tuple[Evidence, ...]]]:
        """See `SharingScorer.evidence_many`. A model that cannot continue from keys and values reads all anew."""
        backend = self._reading(measure)
        if backend is not self:
            cache = None  # what it holds is of fewer layers
        if backend.sharing is Sharing.NOTHING:
            yield from one_by_one(self, segments, questions, measure)
            return
        if cache is not None:
            cache.begin()
        prompts = [self.prompt(measure.asks(question)) for question in questions]
        scoring = SharedPass(backend, prompts, measure, cache)
        for group in looked_ahead(segments, self.group_tokens):
            yield from zip(group, scoring.evidence(group), strict=True)

    def _reading(self, measure: Measure) -> TransformersBackend:
        """This backend, or one on the whole model where the measure needs it and scoring leaves early."""
        return self.whole if measure.needs.all_layers and self._leaves_early else self

    @cached_property
    def sharing(self) -> Sharing:
        """What the model's keys and values can be used for; tried once."""
        return sharing_of(self)

    @cached_property
    def head(self) -> tuple[int, ...]:
        """Tokens that stand between segment and question whatever the question is; see `head_of`."""
        return head_of(self)

    @cached_property
    def sliding_window(self) -> float:
        """Tokens that the model's shortest attention window reaches back; infinity where none slides."""
        config = self.model.config.get_text_config()
        widths = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
        return min((width for width in widths if width), default=float("inf"))

    @torch.inference_mode()
    def logits(self, ids: Tensor, keep: Tensor | int, **cache: Any) -> Any:
        """What the scoring model gives, logits at the kept positions: an int keeps the last, a tensor names them."""
        # Compiled code is made for whole batches without a cache; anything else would have it compiled once more.
        forward = self.scoring_model if len(ids) == 1 or cache.get("use_cache", True) else self._forward
        if self._keeps_logits:
            return forward(input_ids=ids, logits_to_keep=keep, **cache)
        output = forward(input_ids=ids, **cache)
        output.logits = output.logits[:, -keep:] if isinstance(keep, int) else output.logits[:, keep]
        return output

    # ------------------------------------------------------------------------------------------ reading
    def stream(
        self, context: str, question: str, *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> Iterator[str]:
        """See `Generator.stream`. `options` are passed to `generate` of transformers; greedy without a temperature."""
        prompt = self.prompt(question)
        ids = [*prompt.before, *self.tokenizer.ids(context), *prompt.after]
        return self._stream_ids(ids, max_new_tokens, stop, options)

    def complete(
        self, prompt: str, *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> Iterator[str]:
        """See `Generator.complete`."""
        return self._stream_ids(self.tokenizer.prompt_ids(prompt), max_new_tokens, stop, options)

    def complete_many(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> list[str]:
        """The texts that `complete` would write, from one batch."""
        if not prompts:
            return []
        rows = [self.tokenizer.prompt_ids(prompt) for prompt in prompts]
        longest = max(map(len, rows))
        self._require_room(longest, max_new_tokens)
        arguments = self._generate_arguments(max_new_tokens, options)
        pad = arguments["pad_token_id"]
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=self.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self.device)
        try:
            with torch.inference_mode():
                written = self.model.generate(ids, attention_mask=mask, **arguments)[:, longest:]
        except Exception as error:
            raise ScoringError(f"The model failed while writing its answers: {error}") from error
        return ["".join(until([self.tokenizer.decode(row)], stop)) for row in written.tolist()]

    def _require_room(self, tokens: int, max_new_tokens: int) -> None:
        if tokens + max_new_tokens > self.window:
            raise InputError(
                f"The prompt has {tokens} tokens and max_new_tokens is {max_new_tokens}, but the model's window is "
                f"{self.window} tokens; shorten the context or the question, or lower max_new_tokens."
            )

    def _stream_ids(
        self, ids: list[int], max_new_tokens: int, stop: tuple[str, ...], options: dict[str, Any]
    ) -> Iterator[str]:
        from transformers import StoppingCriteriaList, TextIteratorStreamer

        self._require_room(len(ids), max_new_tokens)
        streamer = TextIteratorStreamer(self.hf_tokenizer, skip_prompt=True, skip_special_tokens=True)
        cancelled = threading.Event()
        failures: list[BaseException] = []
        criteria = StoppingCriteriaList([lambda ids, scores, **_: torch.full((len(ids),), cancelled.is_set())])
        prompt = torch.tensor([ids], device=self.device)
        arguments = self._generate_arguments(max_new_tokens, options)

        def work() -> None:
            """Write into the streamer, and end it also where that fails."""
            try:
                with torch.inference_mode():
                    self.model.generate(
                        prompt,
                        attention_mask=torch.ones_like(prompt),
                        streamer=streamer,
                        stopping_criteria=criteria,
                        **arguments,
                    )
            except BaseException as error:  # handed to the consumer's thread below
                failures.append(error)
                streamer.end()

        thread = threading.Thread(target=work, name="xl3m-generate", daemon=True)
        thread.start()
        try:
            yield from until(streamer, stop)
        finally:
            cancelled.set()
            thread.join()
        if failures:
            raise ScoringError(f"The model failed while writing its answer: {failures[0]}") from failures[0]

    def _generate_arguments(self, max_new_tokens: int, options: dict[str, Any]) -> dict[str, Any]:
        config = self.model.generation_config
        pad = next(
            (i for i in (config.pad_token_id, self.hf_tokenizer.pad_token_id, self.tokenizer.eos_id) if i is not None),
            0,
        )
        temperature = options.get("temperature")
        sampled = bool(options.get("do_sample", temperature is not None)) and temperature != 0
        arguments: dict[str, Any] = {"max_new_tokens": max_new_tokens, "pad_token_id": pad, **options}
        if not sampled:
            arguments |= {"temperature": None, "top_p": None, "top_k": None}
        return arguments | {"do_sample": sampled}


def _window_of(model: Any, tokenizer: Any) -> int:
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None) or tokenizer.model_max_length
    if not window or window > 10**9:
        raise ModelLoadError(
            f"{type(model).__name__} does not say how many tokens it reads (max_position_embeddings); pass window=."
        )
    return int(window)
