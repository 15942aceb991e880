"""The data domain: parameters of the pipeline and two code slots."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np

from asi_evolve.candidate import Component
from asi_evolve.domain import ParametricDomain
from asi_evolve.domains.corpus_sources import SHARES
from asi_evolve.domains.data.pipeline import QUALITIES, RULES
from asi_evolve.domains.slots import code_statistics
from asi_evolve.errors import InvalidCandidate
from asi_evolve.source import check_source
from asi_evolve.space import Choice, Real

FILTER = '''"""Which documents are kept."""


def filter(doc):
    """doc["text"]: the document; doc["source"]: name of its source. True keeps it."""
    return True
'''
SCORE = '''"""How often a document is drawn, relative to others."""


def score(doc):
    """doc["text"]: the document; doc["source"]: name of its source. A number >= 0; 0 drops it."""
    return 1.0
'''
FILES = {"filter.py": FILTER, "score.py": SCORE}
_DEFINES = {"filter.py": "filter", "score.py": "score"}
_DOC = """Which documents of the pool the model is trained on, and how often. The pipeline filters documents by
statistics of their text, drops duplicates, and weights what is left by quality and by source; the baseline draws
uniformly. The model is tested on English documentation text. filter.py: filter(doc) -> bool; score.py: score(doc) ->
number >= 0; doc = {"text": str, "source": str}. Both see one document at a time."""


def uses_code(component: Component) -> bool:
    """Whether a code slot differs from the baseline's, so that the documents' text has to be looked at."""
    return any(component.files[path] != text for path, text in FILES.items())


def curation_files(component: Component) -> dict[str, str]:
    """A pipeline that runs without the engine: ``curation/pipeline.py`` (see its ``select``) and the two code slots."""
    text = (resources.files(__package__) / "pipeline.py").read_text(encoding="utf-8")
    return {"curation/pipeline.py": text, **{f"curation/{path}": code for path, code in component.files.items()}}


class DataDomain(ParametricDomain):
    """Selection and weighting of documents.

    Args:
        sources: names of the corpus's sources; each gets a weight. Default: those of the default corpus.
        languages: ISO 639-1 codes that documents can be restricted to.
    """

    def __init__(self, sources: Sequence[str] = tuple(SHARES), languages: Sequence[str] = ("en",)) -> None:
        self.sources = tuple(sources)
        parameters = [
            Choice("deduplicate", ("none", "exact", "near"), doc="drop copies, or near-copies too"),
            Choice("min_bytes", (0, 200, 500, 1000, 2000), doc="drop shorter documents"),
            Choice("min_alpha", (0.0, 0.4, 0.5, 0.6, 0.7), doc="drop documents with a smaller share of letters"),
            Choice("max_digit", (1.0, 0.2, 0.1, 0.05, 0.02), doc="drop documents with a larger share of digits"),
            Choice("max_symbol", (1.0, 0.3, 0.2, 0.1, 0.05), doc="drop documents with a larger share of punctuation"),
            Choice("max_repeated_lines", (1.0, 0.5, 0.3, 0.2, 0.1), doc="drop documents that repeat their lines more"),
            Choice("min_stop_words", (0.0, 0.05, 0.1, 0.2, 0.3), doc="drop documents with fewer common English words"),
            Choice("language", ("any", *languages), doc="keep documents of one language, as far as it can be told"),
            Choice("rules", RULES, doc="published rules for web text, on top of the filters above"),
            Choice("quality", QUALITIES, doc="score that weights documents; prose favours English sentences"),
            Choice("reference", self.sources, doc="the source that classifier and likelihood compare with"),
            Real("quality_strength", 0.0, 3.0, doc="how strongly quality weights; 0 not at all"),
            Real("temperature", 1.0, 10.0, log=True, doc="1 keeps the sources' sizes, 10 makes them nearly equal"),
            Choice(
                "max_repeats", (0, 1, 2, 4, 8), doc="how often a document's bytes are drawn at most; 0 sets no limit"
            ),
            Choice("order", ("random", "short_first", "long_first"), doc="of the training windows, by document size"),
            *(
                Choice(f"weight_{name}", (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0), doc=f"how often {name} are drawn")
                for name in sources
            ),
        ]
        start = {"deduplicate": "none", "min_bytes": 0, "min_alpha": 0.0, "max_digit": 1.0, "max_symbol": 1.0}
        start |= {"max_repeated_lines": 1.0, "min_stop_words": 0.0, "quality": "none", "quality_strength": 0.0}
        start |= {"max_repeats": 0, "order": "random", "rules": "none", "language": "any", "reference": self.sources[0]}
        start |= {"temperature": 1.0, **{f"weight_{name}": 1.0 for name in sources}}
        super().__init__("data", parameters, start, FILES, _DOC)

    def validate(self, component: Component) -> None:
        """Parameters, and that the code slots compile and define their functions."""
        super().validate(component)
        for path, name in _DEFINES.items():
            if path not in component.files:
                raise InvalidCandidate(f"files: {path!r} is missing")
            check_source(path, component.files[path], (name,))
        weights = [v for k, v in component.params.items() if k.startswith("weight_")]
        if weights and not any(weights):
            raise InvalidCandidate("weight_*: all sources have weight 0; at least one must be above 0")

    def features(self, component: Component) -> np.ndarray:
        """The encoded parameters, then what the two code slots do."""
        code = [code_statistics(component.files[path]) for path in FILES]
        return np.concatenate([self.space.encode(component.params), *code])
