"""One engine on a tiny model, that scores and reads."""

from __future__ import annotations

import pytest
from models import make_backend

from xl3m_integrations import XL3M


@pytest.fixture(scope="session")
def xl3m() -> XL3M:
    backend = make_backend()
    return XL3M(backend, backend)
