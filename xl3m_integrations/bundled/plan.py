"""What decides a training run of the bundled model: its size, its learning rate and its curriculum."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the result, kept beside the checkpoint.

    Attributes:
        seed: Of weights and rows.
        tokens: Tokens seen in the whole run, padding included.
        curriculum_tokens: Tokens over which rows become longer; after them all lengths are mixed.
        peak_lr: Learning rate between warm-up and decay.
        decay_share: Share of the steps, at the end, over which it falls linearly to zero.
        warmup_steps: Steps over which it rises.
        parts: Parts of a step, each drawn from a seed of its own.
        part_tokens: Tokens of a part.
        hidden_size: Of the model, a multiple of 32.
        intermediate_size: Of the model's feed-forward layers.
        layers: Of the model.
        vocab_size: Of the tokenizer.
        window: Tokens that the model is made for.
        start: Folder of a finished model whose weights and tokenizer the run begins with, all lengths of rows mixed at
            once; empty begins with random weights.
        lm_weight: Weight of the other tokens' cross-entropy beside that of the answers'.
        lm_sample: Share of the other tokens that enter the loss, to save work in the head.
    """

    seed: int = 0
    tokens: int = 950_000_000
    curriculum_tokens: int = 160_000_000
    peak_lr: float = 3.5e-3
    decay_share: float = 0.7
    warmup_steps: int = 100
    parts: int = 16
    part_tokens: int = 6_144
    hidden_size: int = 160
    intermediate_size: int = 480
    layers: int = 6
    vocab_size: int = 4_096
    window: int = 640
    start: str = ""
    lm_weight: float = 0.4
    lm_sample: float = 0.25

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """What `to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self))

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return math.ceil(self.tokens / (self.part_tokens * self.parts))

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step."""
        left = max(0, self.steps - step) / max(1.0, self.decay_share * self.steps)
        return self.peak_lr * min(1.0, (step + 1) / self.warmup_steps, left)

    def stage(self, step: int) -> Stage:
        """The curriculum's stage at a step, drawn by share where several run at once."""
        seen = step * self.part_tokens * self.parts
        progress = 1.0 if self.start else min(1.0, seen / self.curriculum_tokens)
        until = next(stage.until for stage in CURRICULUM if progress <= stage.until)
        current = [stage for stage in CURRICULUM if stage.until == until]
        return random.Random(f"{self.seed} {step}").choices(current, [stage.share for stage in current])[0]


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the curriculum: row length, context lengths, share of rows that only repeat."""

    until: float
    length: int
    context: tuple[int, int]
    repeats: float
    share: float = 1.0


CURRICULUM = (
    Stage(0.07, 192, (24, 96), 0.3),
    Stage(0.28, 320, (48, 190), 0.05),
    Stage(1.0, 384, (90, 220), 0.0, share=0.65),
    Stage(1.0, 704, (220, 560), 0.0, share=0.35),
)
