"""The model and the metadata that the properties of `logocappose` ask for."""

import os
from typing import Any

from posesdk.gst.analytics import why_unavailable
from posesdk.gst.bindings import Gst
from posesdk.gst.faults import ElementFault, SettingsFault
from posesdk.gst.serving import Client, ModelSettings, open_client
from posesdk.gst.settings import ATTACH, parse_options, validated
from posesdk.shipped import find_bundle
from posesdk_runtimes.errors import BundleError, PoseSDKError

__all__ = ["attached_kinds", "open_model"]

_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def open_model(element: Any) -> Client:
    """Loads the model of an element, or joins the one of its `instance-id`.

    Raises ElementFault: SETTINGS for values that cannot be used, NOT_FOUND for a model that is not there, INIT for one
    that cannot be opened here.
    """
    found = False
    try:
        found = os.path.exists(find_bundle(element.value("model") or None))
        return open_client(_model_settings(element), element.value("instance-id"))
    except BundleError as error:
        raise ElementFault(Gst.LibraryError.INIT if found else Gst.ResourceError.NOT_FOUND, str(error)) from error
    except (PoseSDKError, ImportError) as error:
        raise ElementFault(Gst.LibraryError.INIT, str(error)) from error
    except (ValueError, TypeError) as error:
        raise SettingsFault(str(error)) from error


def attached_kinds(text: str) -> frozenset[str]:
    """What the property `attach` asks for: "custom", "roi", "analytics". Raises SettingsFault."""
    names = {validated("attach", part.strip(), ATTACH) for part in text.split("+")}
    if "none" in names and len(names) > 1:
        raise SettingsFault(f"attach: none cannot be joined with others, got {text!r}")
    kinds = names - {"all", "none"}
    missing = why_unavailable()
    if "analytics" in kinds and missing is not None:
        raise SettingsFault(f"attach: there is no analytics metadata here: {missing}; use custom, roi or all")
    if "all" in names:
        kinds |= {"custom", "roi"} if missing is not None else {"custom", "roi", "analytics"}
    return frozenset(kinds)


def _model_settings(element: Any) -> ModelSettings:
    options = parse_options(element.value("options"))
    flip, batch = options.get("flip-test"), options.get("batch")
    if flip is not None:
        validated("options: flip-test", flip.lower(), tuple(_SWITCH))
    if batch is not None and not (batch.isdecimal() and int(batch) > 0):
        raise SettingsFault(f"options: batch: expected a whole number from 1, got {batch!r}")
    return ModelSettings(
        model=element.value("model"),
        runtime=element.value("runtime") or "auto",
        device=element.value("device") or "auto",
        precision=element.value("precision") or "auto",
        variant=options.get("variant", "auto"),
        threads=element.value("threads") or None,
        flip_test=None if flip is None else _SWITCH[flip.lower()],
        batch=None if batch is None else int(batch),
    )
