"""What is done beside training, between steps: previews and validations of the averaged weights."""

import logging

from posesdk_training.run.log import RunLog
from posesdk_training.run.preview import Preview, Validation
from posesdk_training.run.state import Run

__all__ = ["Observation"]

logger = logging.getLogger(__name__)


class Observation:
    """The previews and validations of a run's configuration. Raises DataError at once for data that is not there."""

    def __init__(self, run: Run, log: RunLog) -> None:
        self._run = run
        self._log = log
        config = run.config
        self._preview = None if config.preview is None else Preview(config.preview)
        self._validation = None if config.validation is None else Validation(config.validation, run.averaged_model())

    def look(self, *, last: bool) -> None:
        """Does what is due after the run's present step; all of it after the `last` one."""
        config, step = self._run.config, self._run.step
        if self._preview is not None and config.preview is not None and (last or step % config.preview.every == 0):
            sheet = self._preview.draw(self._run.averaged_model())
            self._preview.write(sheet, self._run.folder, step)
            self._log.add_image(step, "preview", sheet)
        if config.validation is not None and (last or step % config.validation.every == 0):
            self._validate()

    def _validate(self) -> None:
        run = self._run
        assert self._validation is not None
        stats = self._validation.measure(run.averaged_model())
        self._log.add_validation(run.step, stats)
        ap = stats.get("AP", 0.0)
        is_best = run.best_ap is None or ap > run.best_ap
        if is_best:
            run.save_best(ap)
        logger.info("step %d: AP %.4f%s", run.step, ap, ", the best so far" if is_best else "")
