"""One engine on the bundled model, shared."""

from __future__ import annotations

import pytest

from xl3m_integrations import XL3M


@pytest.fixture(scope="session")
def xl3m() -> XL3M:
    return XL3M.default(dtype="float32")
