"""Which language a document is written in, by py3langid (naive Bayes over byte n-grams; Lui and Baldwin 2012)."""

from __future__ import annotations

UNDECIDED = ("und", "zxx")  # ISO 639-2: undetermined, no linguistic content: tables, short texts
_LOOKED_AT = 1000  # bytes; more changes little and costs in proportion
_CONFIDENCE = 0.5


class LanguageId:
    """Tells languages apart. Building one takes about a second."""

    def __init__(self) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=_CONFIDENCE)

    def __call__(self, text: bytes) -> str:
        """ISO 639-1 code of the language of a text, or one of :data:`UNDECIDED`."""
        code, _ = self._identifier.classify(text[:_LOOKED_AT].decode("utf-8", "ignore"))
        return str(code)
