"""The command `posesdk-train report`."""

from pathlib import Path
from typing import Annotated

import typer

from posesdk.terminal import reporting
from posesdk_training.commands.arguments import Images

__all__ = ["report"]


def report(
    figures: Annotated[Path, typer.Argument(help="The report that `evaluate --json` or `--report` wrote.")],
    results: Annotated[Path, typer.Option(help="The COCO results that it was measured on.")],
    annotations: Annotated[Path, typer.Option(help="COCO keypoint annotations.")],
    images: Images,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the report into.")],
    cases: Annotated[int, typer.Option(min=0, help="Pictures of each kind: missed, wrong, best, ...")] = 8,
    score: Annotated[float | None, typer.Option(min=0, max=1, help="Lowest score of a person that is shown.")] = None,
) -> None:
    """Write Markdown and a picture page of an evaluation that was made before, without running the model again."""
    with reporting():
        from posesdk_training.files import require_files, require_folder
        from posesdk_training.report.folder import saved_evaluation, show_writing

        require_folder(output)
        require_files({"FIGURES": figures, "--results": results, "--annotations": annotations})
        typer.echo(
            str(show_writing(saved_evaluation(figures, results, annotations, images, score=score), output, cases))
        )
