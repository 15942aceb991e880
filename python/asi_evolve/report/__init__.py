"""What a campaign found, for people: a summary in text, one HTML file, an export that runs without the engine."""

from asi_evolve.report.html import write_report

__all__ = ["write_report"]
