"""A text longer than the window, asked about as a prompt, as messages and by a template."""

from __future__ import annotations

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from lockers import QUERY, rain_around_the_fact

LONG = rain_around_the_fact(40)
PROMPT = f"{LONG}\n\nQuestion: {QUERY}"
TEMPLATE = PromptTemplate("Use this:\n{context_str}\nQuery: {query_str}\nAnswer: ")
MESSAGES = [
    ChatMessage(role="system", content="Be brief."),
    ChatMessage(role="user", content=f"{LONG}\n\n{QUERY}"),
]
