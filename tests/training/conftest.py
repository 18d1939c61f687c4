"""Fixtures of the training tests."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("lightning", reason="training needs lightning")


TINY_RUN = Path(__file__).with_name("tiny_run.py")


def _module(path: Path) -> ModuleType:
    """A helper module of the tests, under a name of its own (tests are imported without a package)."""
    name = f"posesdk_tests_{path.stem}"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def load_module() -> Callable[[Path], ModuleType]:
    """Imports a helper module by its path, once."""
    return _module


@pytest.fixture(scope="session")
def tiny_run() -> ModuleType:
    """The module tests/training/tiny_run.py."""
    return _module(TINY_RUN)


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Annotation file and image folder of six photos with one drawn figure each."""
    return _module(TINY_RUN).write_tiny_set(tmp_path_factory.mktemp("tiny"))
