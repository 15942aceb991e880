"""A run directory: where everything of a campaign lies, locked by the engine that works in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from asi_evolve.config import Config
from asi_evolve.errors import RunDirectoryError


class RunDirectory:
    """Paths of a run: ``config.yaml`` (as resolved), ``run.db`` (the knowledge base), ``llm.log``, ``run.lock``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

    @property
    def database(self) -> Path:
        """The knowledge base."""
        return self.path / "run.db"

    @property
    def config_path(self) -> Path:
        """The resolved configuration. Raises RunDirectoryError when the directory holds no run."""
        path = self.path / "config.yaml"
        if not path.is_file():
            raise RunDirectoryError(f"{self.path}: holds no run (no config.yaml)")
        return path

    def has_run(self) -> bool:
        """Whether a campaign was started here."""
        return self.database.is_file()

    def write_config(self, config: Config) -> None:
        """Stores the resolved configuration, whole or not at all."""
        part = self.path / "config.yaml.part"
        part.write_text(config.to_yaml(), encoding="utf-8")
        os.replace(part, self.path / "config.yaml")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the directory for one engine. The lock ends with the process, however it ends.

        Raises:
            RunDirectoryError: the directory cannot be made or written, holds other things, or is in use.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = [p.name for p in self.path.iterdir()]
            if foreign and not self.has_run() and not {"config.yaml", "run.lock"} & set(foreign):
                raise RunDirectoryError(f"{self.path}: not empty and not a run directory (has {sorted(foreign)[0]})")
            handle = open(self.path / "run.lock", "w")  # noqa: SIM115
        except OSError as error:
            raise RunDirectoryError(f"{self.path}: cannot be written: {error.strerror}") from None
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunDirectoryError(f"{self.path}: another engine is working in this run directory") from None
            yield

    def locked(self) -> bool:
        """Whether an engine is working here now."""
        try:
            with open(self.path / "run.lock") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
        except FileNotFoundError:
            return False
        except OSError:
            return True
