"""The command `posesdk-train profile-data`."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from posesdk.terminal import reporting, show_line
from posesdk_training.commands.arguments import Config, Overrides, usage_errors
from posesdk_training.settings.recipe import find_recipe

if TYPE_CHECKING:
    from posesdk_training.trials.data_profile import DataProfile

__all__ = ["profile_data"]

RATES = (100, 300, 1000, 3000)
"""Samples a second: a CPU that trains a nano network, and GPUs."""


def profile_data(
    config: Config,
    set_: Overrides = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure, roughly.")] = 10.0,
    workers: Annotated[int, typer.Option(min=0, help="Measure so many loader processes as well.")] = 0,
    phase: Annotated[int, typer.Option(min=0, help="The phase whose mixture and sizes are loaded.")] = 0,
    rate: Annotated[float | None, typer.Option(min=1, help="Samples a second that the trainer takes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the figures as JSON to standard output.")] = False,
) -> None:
    """Measure what loading the data costs: images a second and core, by set and by stage."""
    with reporting():
        from rich.console import Console

        from posesdk_training.config import load_config
        from posesdk_training.trials.data_profile import profile_data as measure

        with Console(stderr=True).status(f"loading for {seconds:g} s"), usage_errors():
            settings = load_config(find_recipe(config), tuple(set_ or ()))
            profile = measure(settings, seconds=seconds, workers=workers, phase=phase)
        if as_json:
            show_line(json.dumps(profile.to_dict()))
        else:
            _show(profile, rates=RATES if rate is None else (rate,), cached=settings.data.cache_images)


def _show(profile: "DataProfile", *, rates: tuple[float, ...], cached: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from posesdk_training.trials.data_profile import STAGES

    sizes = ", ".join(f"{size} px {share:.0%}" for size, share in profile.sizes.items())
    title = f"CPU-ms an image; images a second of a core, and by the wall; crops of {sizes}"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("set")
    for name in (*(stage.partition("+")[0] for stage in STAGES), "total", "/s/core", "/s wall"):
        table.add_column(name, justify="right")
    for cost in profile.costs:
        stages = (f"{cost.milliseconds[stage]:.2f}" for stage in STAGES)
        table.add_row(cost.name, *stages, f"{cost.total:.2f}", f"{cost.rate:.0f}", f"{cost.wall_rate:.0f}")
    Console().print(table)
    if profile.workers_rate is not None:
        each = profile.workers_rate / profile.workers
        show_line(f"{profile.workers} loader processes: {profile.workers_rate:.0f} images/s, {each:.0f} each")
    if cached:
        rest = profile.mixture.total - profile.mixture.milliseconds["read+decode"]
        show_line(f"data.cache_images is on: an image that is kept is not read again, {1000 / rest:.0f} images/s/core")
    for rate in rates:
        show_line(f"a trainer of {rate:g} samples/s needs {profile.cores(rate)} loader cores")
    if profile.skipped:
        show_line(f"{profile.skipped} images or shards could not be read and were skipped")
