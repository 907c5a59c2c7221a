"""XL3M: local models answer questions about texts far longer than their window, with no training (arXiv 2405.17755)."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from xl3m_integrations.errors import (
    CacheError,
    InputError,
    JournalError,
    MissingExtraError,
    ModelLoadError,
    ScoringError,
    SettingError,
    XL3MError,
)
from xl3m_integrations.types import Answer, KeyContext, Progress, ScoredSegment, Segment, Selection

if TYPE_CHECKING:
    from xl3m_integrations.backends.tuned_lens import TunedLens
    from xl3m_integrations.certainty import AnswerEntropy, Blend, Entropy, Measure, QuestionLikelihood
    from xl3m_integrations.engine import XL3M
    from xl3m_integrations.lens_fitting import fit_lens
    from xl3m_integrations.prefilter import BM25
    from xl3m_integrations.selection import AdaptiveGap, Budget, TopK

try:
    __version__ = version("xl3m-integrations")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"

# Loaded when first used, since they load torch.
_LAZY = {
    "XL3M": "engine",
    "AdaptiveGap": "selection",
    "BM25": "prefilter",
    "Budget": "selection",
    "TopK": "selection",
    "AnswerEntropy": "certainty",
    "Blend": "certainty",
    "Entropy": "certainty",
    "Measure": "certainty",
    "QuestionLikelihood": "certainty",
    "TunedLens": "backends.tuned_lens",
    "fit_lens": "lens_fitting",
}

__all__ = [
    "BM25",
    "XL3M",
    "AdaptiveGap",
    "Answer",
    "AnswerEntropy",
    "Blend",
    "Budget",
    "CacheError",
    "Entropy",
    "InputError",
    "JournalError",
    "KeyContext",
    "Measure",
    "MissingExtraError",
    "ModelLoadError",
    "Progress",
    "QuestionLikelihood",
    "ScoredSegment",
    "ScoringError",
    "Segment",
    "Selection",
    "SettingError",
    "TopK",
    "TunedLens",
    "XL3MError",
    "__version__",
    "fit_lens",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return __all__
