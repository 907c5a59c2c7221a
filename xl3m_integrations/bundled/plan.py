"""What decides a training run of the bundled model: its cycles of learning rate and its curriculum."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Cycle:
    """Warm-up, plateau and linear decay to zero of the learning rate.

    Attributes:
        tokens: Tokens seen by all processes together, padding included.
        peak_lr: Learning rate of the plateau.
        decay_share: Share of the steps, at the end, over which it falls.
        layers: Layers of the model, which grows where they are more than in the cycle before.
    """

    tokens: int
    peak_lr: float
    decay_share: float
    layers: int = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the result, kept beside the checkpoint."""

    seed: int = 0
    cycles: tuple[Cycle, ...] = (
        Cycle(46_000_000, 2.5e-3, 0.35),
        Cycle(34_000_000, 2e-3, 0.5),
        Cycle(45_000_000, 2e-3, 0.5),
        Cycle(34_000_000, 2e-3, 0.6),
        Cycle(120_000_000, 2e-3, 0.6, layers=6),
        Cycle(72_000_000, 2e-3, 0.6, layers=6),
    )
    step_tokens: int = 6_144  # per process and step
    vocab_size: int = 4_096
    window: int = 640
    warmup_steps: int = 100
    lm_weight: float = 0.4
    lm_sample: float = 0.25  # share of the language-model positions that enter the loss, to save head work
    processes: int = 2
    start_cycle: int = 0  # those before it are in the weights that the run starts with

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """What `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "cycles": tuple(Cycle(**cycle) for cycle in values["cycles"])})

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self))

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return sum(cycle.tokens for cycle in self.cycles)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.first_step(len(self.cycles))

    def cycle_steps(self, cycle: Cycle) -> int:
        """Optimiser steps of one cycle."""
        return math.ceil(cycle.tokens / (self.step_tokens * self.processes))

    def first_step(self, cycle: int) -> int:
        """The step with which a cycle begins, counted from 0."""
        return sum(self.cycle_steps(before) for before in self.cycles[:cycle])

    def layers(self, step: int) -> int:
        """Layers of the model at a step."""
        return self._cycle_at(step)[0].layers

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step."""
        if step >= self.steps:
            return 0.0
        cycle, within = self._cycle_at(step)
        steps = self.cycle_steps(cycle)
        left = (steps - within) / max(1.0, cycle.decay_share * steps)
        return cycle.peak_lr * min(1.0, (within + 1) / self.warmup_steps, left)

    def _cycle_at(self, step: int) -> tuple[Cycle, int]:
        """The cycle of a step, the last one's beyond the end, and how many of its steps came before."""
        number = max(n for n in range(len(self.cycles)) if self.first_step(n) <= step)
        return self.cycles[number], step - self.first_step(number)

    def progress(self, step: int) -> float:
        """Where a step is in the curriculum, from 0 to 1; the curriculum spans the first cycle."""
        return min(1.0, step / self.cycle_steps(self.cycles[0]))


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


def stage_at(progress: float, rng: random.Random) -> Stage:
    """The curriculum's stage at `progress` (0 to 1), drawn by share where several run at once."""
    until = next(stage.until for stage in CURRICULUM if progress <= stage.until)
    current = [stage for stage in CURRICULUM if stage.until == until]
    return rng.choices(current, [stage.share for stage in current])[0]
