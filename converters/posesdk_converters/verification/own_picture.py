"""The self test of a bundle that is being made: what its user will run first on a device has to pass here, too."""

from collections.abc import Sequence
from pathlib import Path

from posesdk.bundle import Bundle
from posesdk.selftest import Check, run_selftest
from posesdk.variants import Candidate
from posesdk_converters.verification.judge import runtime_here
from posesdk_runtimes.errors import GateError

__all__ = ["require_selftest"]


def require_selftest(bundle: Bundle, report: Path) -> Sequence[Check]:
    """Runs `posesdk selftest` of every variant on the CPU here, and writes what came out below the report's page.

    Variants for a GPU run by the backend that they were judged with. Raises GateError where one fails, and as
    `run_selftest` does.
    """
    candidates = [
        Candidate(variant, runtime, "cpu")
        for variant in bundle.manifest.variants
        if (runtime := runtime_here(variant)) is not None
    ]
    checks = run_selftest(bundle, candidates)
    with report.open("a", encoding="utf-8") as page:
        page.write("\n## Self test\n\n" + "".join(f"- {check.summary}\n" for check in checks))
    if failed := [check for check in checks if not check.skipped and not check.passed]:
        raise GateError(
            f"self test: {'; '.join(check.summary for check in failed)}. The bundle was not written, for `posesdk "
            f"selftest` would fail on the device; the report is {report}. Give more calibration images, another "
            "--precision, or with --golden a picture like those of your cameras"
        )
    return checks
