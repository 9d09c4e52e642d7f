"""A simulated embeddings API: OpenAI's interface, the vectors made of a text's words."""

from __future__ import annotations

from fetcher.simulator.embeddings.world import EmbeddingsWorld

__all__ = ["EmbeddingsWorld"]
