"""What is read of a machine's sensors, on trees of files that look like /sys."""

import stat
from pathlib import Path

import pytest

from posesdk.benchmark import sensors
from posesdk.benchmark.sensors import Reading, Sensors


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [100.0]
    monkeypatch.setattr(sensors.time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def _no_other_clock(monkeypatch):
    monkeypatch.setattr(sensors.psutil, "cpu_freq", lambda: None)


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def test_a_machine_that_says_nothing_has_no_figures(tmp_path):
    assert Sensors(system=tmp_path).read() == Reading(None, None, None)


def test_the_warmest_sensor_counts_and_the_mean_clock(tmp_path):
    write(tmp_path, {"class/thermal/thermal_zone0/temp": 41000, "class/hwmon/hwmon1/temp1_input": 66500})
    write(tmp_path, {"class/hwmon/hwmon1/temp2_input": -128000, "class/thermal/thermal_zone1/temp": "asleep"})
    for core, clock in enumerate((1_000_000, 3_000_000)):
        write(tmp_path, {f"devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq": clock})
    found = Sensors(system=tmp_path).read()
    assert (found.celsius, found.megahertz, found.watts) == (66.5, 2000.0, None)


def test_power_is_the_energy_of_all_packages_since_the_reading_before(tmp_path, clock):
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:0": "core", "intel-rapl:2": "psys"}
    for zone, name in zones.items():
        write(tmp_path, {f"class/powercap/{zone}/name": name, f"class/powercap/{zone}/energy_uj": 5_000_000})
    read = Sensors(system=tmp_path)
    clock[0] += 2.0
    for zone in zones:
        write(tmp_path, {f"class/powercap/{zone}/energy_uj": 35_000_000})
    assert read.read().watts == pytest.approx(2 * 30 / 2)
    clock[0] += 1.0
    write(tmp_path, {"class/powercap/intel-rapl:0/energy_uj": 7})  # wrapped around
    assert read.read().watts is None


@pytest.mark.parametrize(
    ("files", "watts"),
    [
        pytest.param({"in1_label": "VDD_IN", "in1_input": 5000, "curr1_input": 2000}, 10.0, id="whole-module"),
        pytest.param(
            {"in1_label": "VDD_GPU_SOC", "in1_input": 19000, "curr1_input": 100}
            | {"in2_label": "VDD_CPU_CV", "in2_input": 19000, "curr2_input": 200},
            5.7,
            id="sum-of-rails",
        ),
    ],
)
def test_a_jetson_has_the_power_of_its_monitor(tmp_path, files, watts):
    folder = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    write(tmp_path, {f"{folder}/{name}": value for name, value in files.items()})
    assert Sensors(system=tmp_path).read().watts == pytest.approx(watts)


def test_an_older_jetson_gives_milliwatts(tmp_path):
    folder = "bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    write(tmp_path, {f"{folder}/rail_name_0": "POM_5V_IN", f"{folder}/in_power0_input": 4200})
    write(tmp_path, {f"{folder}/rail_name_1": "POM_5V_GPU", f"{folder}/in_power1_input": 900})
    assert Sensors(system=tmp_path).read().watts == pytest.approx(4.2)


@pytest.mark.parametrize(
    ("said", "reading"),
    [
        pytest.param("45, 1980, 312.5", Reading(45.0, 1980.0, 312.5), id="card"),
        pytest.param("50, [N/A], [Not Supported]", Reading(50.0, None, None), id="half-blind"),
        pytest.param("No devices were found", Reading(None, None, None), id="none"),
    ],
)
def test_a_card_is_asked_by_its_number(tmp_path, monkeypatch, said, reading):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\ncase "$*" in *--id=1*) echo "{said}";; esac\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert Sensors("cuda:1", tmp_path).read() == reading
