import json
import time

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from posesdk_training.data.batches import SampleKey
from posesdk_training.data.dataset import KeypointDataset
from posesdk_training.data.shard_writer import ShardSettings, write_shards
from posesdk_training.data.stage_clock import StageClock
from posesdk_training.program import app
from posesdk_training.settings.data import DatasetConfig
from posesdk_training.trials.data_profile import MIXTURE, STAGES, DataProfile, LoadingCost, profile_data


@pytest.fixture
def mixed(tiny_run, tiny_set, tmp_path):
    """A folder and the shards of the same photos, half and half."""
    write_shards(*tiny_set, tmp_path / "shards", ShardSettings(shard_size=3))
    config = tiny_run.tiny_config(*tiny_set)
    sets = (*config.data.sets, DatasetConfig(name="streamed", shards=str(tmp_path / "shards")))
    phase = config.phases[0].model_copy(update={"mixture": {"tiny": 0.5, "streamed": 0.5}})
    data = config.data.model_copy(update={"sets": sets})
    return config.model_copy(update={"data": data, "phases": (phase,)})


def test_profile_has_a_row_for_every_set_and_the_mixture(mixed):
    profile = profile_data(mixed, seconds=0.6, workers=0)
    assert [cost.name for cost in profile.costs] == ["tiny", "streamed", MIXTURE]
    for cost in profile.costs:
        assert tuple(cost.milliseconds) == STAGES
        assert cost.milliseconds["read+decode"] > 0
        assert cost.milliseconds["targets"] > 0
        assert cost.milliseconds["collate"] > 0
        assert cost.total == pytest.approx(sum(cost.milliseconds.values()))
    assert profile.workers_rate is None


def test_stages_add_up_to_the_cpu_time_of_a_sample(tiny_run, tiny_set):
    clock = StageClock()
    dataset = KeypointDataset(tiny_run.tiny_config(*tiny_set), clock)
    dataset[SampleKey(0, 64, 0)]
    clock.reset()
    began = time.process_time()
    for index in range(30):
        dataset[SampleKey(index, 64, 0)]
    spent = time.process_time() - began
    assert list(clock.seconds) == ["read+decode", "crop+warp", "colour", "targets"]
    assert 0.8 * spent < sum(clock.seconds.values()) <= spent


def test_clock_changes_nothing(tiny_run, tiny_set):
    config = tiny_run.tiny_config(*tiny_set)
    with_clock, without = KeypointDataset(config, StageClock()), KeypointDataset(config)
    key = SampleKey(5, 64, 0)
    assert all(np.array_equal(with_clock[key][name], value) for name, value in without[key].items())


def test_loader_processes_are_measured_together(mixed):
    assert profile_data(mixed, seconds=0.4, workers=2).workers_rate > 0


def test_cores_that_a_trainer_needs_follow_from_the_cpu_time_of_the_mixture():
    cheap = LoadingCost("set", 10, {"read+decode": 1.0}, 900.0)
    mixture = LoadingCost(MIXTURE, 10, {"read+decode": 1.5, "targets": 2.5}, 200.0)
    profile = DataProfile((cheap, mixture), 0, None, {64: 1.0}, 0)
    assert mixture.rate == 250
    assert [profile.cores(rate) for rate in (100, 250, 251, 1000)] == [1, 1, 2, 4]


def test_phase_that_is_not_there_is_named(mixed):
    with pytest.raises(ValueError, match="no phase 3"):
        profile_data(mixed, seconds=0.1, workers=0, phase=3)


def test_command_prints_a_table_and_json(tiny_run, tiny_set, tmp_path):
    tree = json.loads(tiny_run.tiny_config(*tiny_set).model_dump_json(exclude_none=True))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    shown = CliRunner().invoke(app, ["profile-data", str(path), "--seconds", "0.2", "--rate", "50"])
    assert shown.exit_code == 0, shown.output
    assert "mixture" in shown.output
    assert "a trainer of 50 samples/s needs" in shown.output
    written = CliRunner().invoke(app, ["profile-data", str(path), "--seconds", "0.2", "--json"])
    report = json.loads(written.stdout)
    assert [row["name"] for row in report["costs"]] == ["tiny", "mixture"]
    assert report["costs"][-1]["samples_per_second_per_core"] == pytest.approx(
        1000 / report["costs"][-1]["cpu_ms_total"], rel=0.01
    )
    refused = CliRunner().invoke(app, ["profile-data", str(path), "--phase", "9"])
    assert refused.exit_code == 2
