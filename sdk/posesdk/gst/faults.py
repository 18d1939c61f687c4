"""What a fault inside an element becomes: one error on the bus, then the end of the flow or of the state change.

An exception that leaves a virtual method is printed by PyGObject and becomes success: the pipeline would run to a happy
end without poses, or wait forever for a state that never comes.
"""

import functools
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from posesdk.gst.bindings import GLib, Gst

__all__ = ["ElementFault", "SettingsFault", "guarded", "importing", "post_error", "post_warning"]

Result = TypeVar("Result")


class ElementFault(Exception):
    """A fault whose kind on the bus is known: `code` is a value of Gst.LibraryError, Gst.ResourceError, ..."""

    def __init__(self, code: Any, text: str) -> None:
        super().__init__(text)
        self.code = code


class SettingsFault(ElementFault):
    """A property has a value that cannot be used."""

    def __init__(self, text: str) -> None:
        super().__init__(Gst.LibraryError.SETTINGS, text)


def guarded(failed: Result) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Makes a virtual method post its exceptions on the bus and return `failed`."""

    def decorate(method: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(method)
        def boundary(element: Any, *args: Any) -> Result:
            try:
                return method(element, *args)
            except Exception as error:  # noqa: BLE001  (the boundary to C, where exceptions get lost)
                post_error(element, error)
                return failed

        return boundary

    return decorate


@contextmanager
def importing(element: Any) -> Iterator[None]:
    """A package that an import inside does not find becomes an ElementFault that names it, and the remedy."""
    try:
        yield
    except ImportError as error:
        raise ElementFault(
            Gst.LibraryError.INIT,
            f"cannot start {element.get_name()}: a Python package is missing ({error}); run `pip install posesdk` for "
            "the Python that runs this pipeline",
        ) from error


def post_error(element: Any, error: BaseException) -> None:
    """Posts an exception as ERROR: of the kind that it names, else STREAM / FAILED.

    The debug text of an ElementFault is the kind of what caused it, for its own text says all; of others, a traceback.
    """
    if isinstance(error, ElementFault):
        code, cause = error.code, error.__cause__
        debug = "" if cause is None else f"{type(cause).__module__}.{type(cause).__qualname__}"
    else:
        code = Gst.StreamError.FAILED
        debug = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    element.post_message(Gst.Message.new_error(element, _gerror(code, str(error) or repr(error)), debug))


def post_warning(element: Any, fault: ElementFault) -> None:
    """Posts a fault that stops nothing as WARNING."""
    element.post_message(Gst.Message.new_warning(element, _gerror(fault.code, str(fault)), ""))


def _gerror(code: Any, text: str) -> Any:
    return GLib.Error.new_literal(type(code).quark(), text, int(code))
