"""The knowledge base: everything a campaign has proposed, measured, claimed and decided, append-only."""

from asi_evolve.knowledge.store import Evaluation, Store

__all__ = ["Evaluation", "Store"]
