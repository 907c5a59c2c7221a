"""`python -m xl3m_integrations.cli`."""

from xl3m_integrations.cli import main

main()
