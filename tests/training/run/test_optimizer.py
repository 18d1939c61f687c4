"""Learning-rate schedules."""

import math
from pathlib import Path
from types import ModuleType

import pytest

from posesdk_training.run.optimizer import learning_rate
from posesdk_training.settings.learning import OptimizerConfig


def test_cosine_falls_from_the_rate_to_its_final_fraction():
    config = OptimizerConfig(learning_rate=0.2, schedule="cosine", final_fraction=0.1)
    rates = [learning_rate(step, 100, config) for step in (0, 50, 100)]
    assert rates == pytest.approx([0.2, 0.2 * (0.1 + 0.9 * 0.5), 0.02])


def test_published_schedule_falls_tenfold_after_epochs_90_and_120_of_140():
    config = OptimizerConfig()
    rates = [learning_rate(step, 1400, config) for step in (0, 899, 900, 1199, 1200, 1399)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_warm_up_rises_in_equal_steps():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=4, milestones=())
    assert [learning_rate(step, 10, config) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_phase_with_its_own_rate_has_its_own_schedule(tiny_run: ModuleType):
    shared = {"mixture": {"tiny": 1.0}, "sizes": {64: 1.0}}
    phases = [{"until": 0.6, **shared}, {"until": 1.0, "learning_rate": 0.5, **shared}]
    optimizer = {"learning_rate": 1.0, "schedule": "cosine", "final_fraction": 0.0}
    config = tiny_run.tiny_config(Path("a.json"), Path("a"), phases=phases, steps=100, optimizer=optimizer)
    rates = [learning_rate(*config.schedule_at(step)) for step in range(100)]
    expected = [0.5 + 0.5 * math.cos(math.pi * step / 100) for step in range(60)]
    expected += [0.5 * (0.5 + 0.5 * math.cos(math.pi * step / 40)) for step in range(40)]
    assert rates == pytest.approx(expected)
