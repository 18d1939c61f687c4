"""Temperature, clock frequency and power of a machine, where it lets itself be asked; None where it does not."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Reading", "Sensors"]

SYSTEM = Path("/sys")
MICRO, MILLI = 1e-6, 1e-3
INA_FOLDERS = ("bus/i2c/drivers/ina3221/*/hwmon/hwmon*", "bus/i2c/drivers/ina3221x/*/iio:device*")
"""Where the power monitor of a Jetson stands: with JetPack 5 and newer, and before."""
INA_TOTAL = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "VDD_GPU_SOC")
"""Labels of the rail that feeds a module, in the order of preference; the last one where none of all is there."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The warmest sensor in degrees Celsius, the mean clock of the cores in MHz, and watts since the reading before."""

    celsius: float | None
    megahertz: float | None
    watts: float | None


class Sensors:
    """Readings of this machine; `system` stands for another place than /sys."""

    def __init__(self, system: Path = SYSTEM) -> None:
        self._system = system
        self._energy = self._joules()
        self._since = time.perf_counter()

    def read(self) -> Reading:
        """What can be read now."""
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
        packages = list(self._numbers("class/powercap/intel-rapl:?/energy_uj"))
        return MICRO * sum(packages) if packages else None

    def _rail_watts(self) -> float | None:
        """A Jetson's power monitor: volts times amperes of the rail that feeds the module."""
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
        return next((rails[name] for name in INA_TOTAL if name in rails), None)

    def _numbers(self, pattern: str) -> Iterable[float]:
        return (value for path in sorted(self._system.glob(pattern)) if (value := _number(path)) is not None)


def _number(path: Path) -> float | None:
    text = _text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):  # not there, not for everybody, or asleep
        return None
