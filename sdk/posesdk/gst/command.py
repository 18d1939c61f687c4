"""The commands `posesdk gst ...`."""

from typing import Annotated

import typer

from posesdk.terminal import USAGE, reporting, show_error, show_line, show_text

__all__ = ["app"]

app = typer.Typer(
    name="gst",
    help="Poses in GStreamer pipelines: the elements logocappose, logocapposejson and logocapoverlay.",
    short_help="Run and describe GStreamer pipelines with poses.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(short_help="Run a pipeline, as gst-launch-1.0 does.")
def launch(
    pipeline: Annotated[list[str], typer.Argument(metavar="PIPELINE", help="In quotes, or as several words.")],
    eos_on_shutdown: Annotated[
        bool, typer.Option("--eos-on-shutdown", "-e", help="Let files be finished at Ctrl-C and after an error.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print formats and other properties that change.")
    ] = False,
    messages: Annotated[bool, typer.Option("--messages", "-m", help="Print the messages of elements.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings alone.")] = False,
) -> None:
    """Run a pipeline in this process, where the elements need no plugin path, no loader and no registry."""
    with reporting():
        from posesdk.gst import register

        register()
        from posesdk.gst.launch import LaunchOptions, parse_pipeline
        from posesdk.gst.launch import launch as run_launch

        try:
            parsed = parse_pipeline(pipeline)
        except ValueError as error:
            show_error(error)
            raise typer.Exit(USAGE) from error
        raise typer.Exit(run_launch(parsed, LaunchOptions(eos_on_shutdown, verbose, messages, quiet)))


@app.command(short_help="Describe an element, as gst-inspect-1.0 does.")
def inspect(
    element: Annotated[str | None, typer.Argument(help="Its name; without one, the elements of posesdk.")] = None,
) -> None:
    """Print an element's formats, properties and signals; without a name, list the elements of posesdk."""
    with reporting():
        from posesdk.gst import register

        register()
        from posesdk.gst.inspection import describe_element, list_elements

        if element is None:
            for line in list_elements():
                show_line(line)
            return
        try:
            show_text(describe_element(element))
        except ValueError as error:
            show_error(error)
            raise typer.Exit(USAGE) from error


@app.command(short_help="Print what makes gst-launch-1.0 find the elements.")
def env() -> None:
    """Print the variable with which gst-launch-1.0 and other programs find the elements: eval "$(posesdk gst env)"."""
    with reporting():
        from posesdk.gst.environment import assignment, hints

        show_line(assignment())
        for hint in hints():
            show_line(f"# {hint}", err=True)
