"""Finding a benchmark by name: the built-in ones, or ``package.module:Class`` / ``/path/script.py:Class``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asi_evolve.domain import Benchmark
from asi_evolve.errors import ConfigError

BUILT_IN = {
    "lm": "asi_evolve.domains.lm:LanguageModelBenchmark",
    "joint": "asi_evolve.domains.lm_joint:JointBenchmark",
    "synthetic": "asi_evolve.domains.synthetic:SyntheticBenchmark",
    "rl": "asi_evolve.domains.rl.benchmark:RLBenchmark",
}


def load_class(spec: str) -> Any:
    """The object behind ``module:attribute`` or ``/path/file.py:attribute``.

    Raises:
        ConfigError: it cannot be imported, or has no such attribute.
    """
    module_name, _, attribute = BUILT_IN.get(spec, spec).rpartition(":")
    if not module_name:
        allowed = ", ".join(BUILT_IN)
        raise ConfigError(f"benchmark.name: {spec!r} is not one of {allowed}, module:Class or /path/script.py:Class")
    try:
        script = module_name.endswith(".py")
        module = _from_file(Path(module_name)) if script else importlib.import_module(module_name)
    except (ImportError, OSError, SyntaxError) as error:
        raise ConfigError(f"benchmark.name: {module_name} cannot be imported: {error}") from None
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise ConfigError(f"benchmark.name: {module_name} has no {attribute!r}")
        target = getattr(target, part)
    return target


def _from_file(path: Path) -> Any:
    """A script imported as a module (so not as ``__main__``), with its own directory importable as when it is run."""
    name = f"asi_evolve_user_{path.stem}"
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path):
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"no such file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_benchmark(name: str, options: Mapping[str, Any]) -> Benchmark:
    """The benchmark built with its options.

    Raises:
        ConfigError: unknown name, unknown option, or an object that is not a benchmark.
    """
    cls = load_class(name)
    try:
        benchmark = cls(**options)
    except TypeError as error:
        raise ConfigError(f"benchmark.options: {error}") from None
    missing = [a for a in ("metric", "maximize", "costs", "domains", "evaluate") if not hasattr(benchmark, a)]
    if missing:
        raise ConfigError(f"benchmark.name: {name} has no {missing[0]!r}; see asi_evolve.Benchmark")
    return benchmark  # type: ignore[no-any-return]
