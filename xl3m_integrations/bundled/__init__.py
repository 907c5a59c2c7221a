"""The small default model: its weights and tokenizer, and the corpus and script that they were trained with."""

from __future__ import annotations

from pathlib import Path

MODEL_FOLDER = Path(__file__).parent / "model"
