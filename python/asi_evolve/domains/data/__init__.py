"""The data domain: a pipeline of typed steps that selects and weights documents of the pool."""

from __future__ import annotations

from asi_evolve.domains.data.domain import DataDomain, curation_files, uses_code
from asi_evolve.domains.data.pipeline import Selection, select

__all__ = ["DataDomain", "Selection", "curation_files", "select", "uses_code"]
