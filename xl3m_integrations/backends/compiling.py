"""`torch.compile` of a model's forward pass, for whatever shapes come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException

from xl3m_integrations.errors import SettingError

BACKEND = "inductor"


def compiled(model: Any) -> Callable[..., Any]:
    """The model's forward pass, compiled when it is first called; the model stays as it is.

    Returns:
        A function that takes the pass's keyword arguments. It raises `SettingError` where compiling fails.
    """
    # One graph for all lengths and batches.
    forward: Callable[..., Any] = torch.compile(model, dynamic=True, backend=BACKEND)

    def call(**inputs: Any) -> Any:
        """The pass; the first of a shape compiles."""
        try:
            return forward(**inputs)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split()).removesuffix(".")[:300]
            raise SettingError(
                f"compile=True: torch.compile fails on {type(model).__name__}: {reason}. Leave it out, or install what "
                "torch.compile needs (on a CPU a C++ compiler)."
            ) from error

    return call
