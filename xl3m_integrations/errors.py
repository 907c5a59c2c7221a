"""Everything that can go wrong, as one tree.

    XL3MError
    ├── InputError        the text or the question cannot be used      (also a ValueError)
    ├── SettingError      a parameter is out of its range              (also a ValueError)
    ├── ModelLoadError    no causal language model could be loaded     (also an OSError)
    ├── ScoringError      the model failed on a segment                (also a RuntimeError)
    ├── JournalError      a journal cannot be used, and was left alone (also an OSError)
    ├── CacheError        keys and values cannot be kept in a folder   (also an OSError)
    └── MissingExtraError an optional dependency is not installed      (also an ImportError)

Each message says what came, what the limit is, and what to do.
"""

from __future__ import annotations


class XL3MError(Exception):
    """Base class of every error that this package raises on purpose."""


class InputError(XL3MError, ValueError):
    """The document or the question cannot be used: empty, too long, or not encodable."""


class SettingError(XL3MError, ValueError):
    """A parameter is unknown or out of its range."""


class ModelLoadError(XL3MError, OSError):
    """What was named does not exist, or holds no causal language model and fast tokenizer."""


class ScoringError(XL3MError, RuntimeError):
    """The model gave no usable probabilities, or memory did not suffice, for the segment that the message names."""


class JournalError(XL3MError, OSError):
    """The file named as a journal is something else, is damaged, or cannot be written; it was left as it is."""


class CacheError(XL3MError, OSError):
    """The folder that is to keep keys and values cannot be made, read or written, or its disk is full."""


class MissingExtraError(XL3MError, ImportError):
    """A feature needs an optional dependency; the message holds the exact install command."""

    @classmethod
    def of(cls, feature: str, extra: str) -> MissingExtraError:
        """The error for `feature`, which the extra `extra` installs."""
        return cls(f'{feature} needs an optional dependency. Install it with: pip install "xl3m-integrations[{extra}]"')
