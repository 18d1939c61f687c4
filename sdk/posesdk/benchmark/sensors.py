"""Temperature, clock frequency and power of a machine, where it lets itself be asked; None where it does not."""

import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from posesdk_runtimes.registry import device_family

__all__ = ["Reading", "Sensors"]

SYSTEM = Path("/sys")
MICRO, MILLI = 1e-6, 1e-3
INA_FOLDERS = ("bus/i2c/drivers/ina3221/*/hwmon/hwmon*", "bus/i2c/drivers/ina3221x/*/iio:device*")
"""Where the power monitor of a Jetson stands: with JetPack 5 and newer, and before."""
INA_TOTAL = ("VDD_IN", "POM_5V_IN")
"""Labels of the rail that feeds a whole module; where there is none, all rails together are the module's."""
PACKAGE = "package"
"""How RAPL calls a processor; its other zones are parts of one, or hold several."""
NVIDIA_SMI = "nvidia-smi"
NVIDIA_FIGURES = "temperature.gpu,clocks.sm,power.draw"
PATIENCE = 10.0
"""Seconds that a card's tool may take."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The warmest sensor in degrees Celsius, the mean clock of the cores in MHz, and watts since the reading before."""

    celsius: float | None
    megahertz: float | None
    watts: float | None


class Sensors:
    """Readings of this machine; of an NVIDIA card, and not of the processor, for a `device` that is one.

    `system` stands for another place than /sys.
    """

    def __init__(self, device: str = "cpu", system: Path = SYSTEM) -> None:
        self._device, self._system = device, system
        self._energy = self._joules()
        self._since = time.perf_counter()

    def read(self) -> Reading:
        """What can be read now."""
        if device_family(self._device) == "cuda" and shutil.which(NVIDIA_SMI):
            return _read_card(self._device.partition(":")[2])
        energy, now = self._joules(), time.perf_counter()
        watts = self._rail_watts()
        if watts is None and energy is not None and self._energy is not None and energy >= self._energy:
            watts = (energy - self._energy) / max(
                now - self._since, MILLI
            )  # a counter that wrapped around says nothing
        self._energy, self._since = energy, now
        return Reading(self._celsius(), self._megahertz(), watts)

    def _celsius(self) -> float | None:
        zones = self._numbers("class/thermal/thermal_zone*/temp")
        chips = self._numbers("class/hwmon/hwmon*/temp*_input")
        return max((MILLI * value for value in (*zones, *chips) if value > 0), default=None)

    def _megahertz(self) -> float | None:
        clocks = list(self._numbers("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"))
        if clocks:
            return MILLI * sum(clocks) / len(clocks)
        found = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
        return float(found.current) if found else None

    def _joules(self) -> float | None:
        """What all processor packages have taken so far (RAPL); parts of a package are in its own figure."""
        zones = sorted(self._system.glob("class/powercap/intel-rapl:*"))
        packages = [_number(zone / "energy_uj") for zone in zones if (_text(zone / "name") or "").startswith(PACKAGE)]
        known = [energy for energy in packages if energy is not None]
        return MICRO * sum(known) if known else None

    def _rail_watts(self) -> float | None:
        """A Jetson's power monitor: volts times amperes."""
        rails: dict[str, float] = {}
        for folder in (found for pattern in INA_FOLDERS for found in sorted(self._system.glob(pattern))):
            for channel in range(4):
                label = _text(folder / f"in{channel}_label") or _text(folder / f"rail_name_{channel}")
                volts, amperes = _number(folder / f"in{channel}_input"), _number(folder / f"curr{channel}_input")
                watts = _number(folder / f"in_power{channel}_input")  # milliwatts
                if label and volts is not None and amperes is not None:
                    rails[label] = MILLI * volts * MILLI * amperes
                elif label and watts is not None:
                    rails[label] = MILLI * watts
        return next((rails[name] for name in INA_TOTAL if name in rails), sum(rails.values()) if rails else None)

    def _numbers(self, pattern: str) -> Iterable[float]:
        return (value for path in sorted(self._system.glob(pattern)) if (value := _number(path)) is not None)


def _read_card(index: str) -> Reading:
    """What NVIDIA's tool says of a card; a Jetson's has no such figures, and says so in words."""
    command = [NVIDIA_SMI, f"--id={index or 0}", f"--query-gpu={NVIDIA_FIGURES}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return Reading(None, None, None)
    cells = [_float(cell) for cell in done.stdout.strip().split(",")]
    return Reading(*cells) if len(cells) == len(NVIDIA_FIGURES.split(",")) else Reading(None, None, None)


def _number(path: Path) -> float | None:
    return _float(_text(path))


def _float(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):  # not there, not for everybody, or asleep
        return None
