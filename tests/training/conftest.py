"""Fixtures of the training tests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("lightning", reason="training needs lightning")


def _module() -> ModuleType:
    """The helper module beside this file, under a name of its own (tests are imported without a package)."""
    name = "posesdk_tests_tiny_run"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, Path(__file__).with_name("tiny_run.py"))
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def tiny_run() -> ModuleType:
    """The module tests/training/tiny_run.py."""
    return _module()


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Annotation file and image folder of six photos with one drawn figure each."""
    return _module().write_tiny_set(tmp_path_factory.mktemp("tiny"))
