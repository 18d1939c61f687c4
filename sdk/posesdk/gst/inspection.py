"""Describes an element as gst-inspect-1.0 does: `posesdk gst inspect`."""

from collections.abc import Iterator
from typing import Any

from posesdk.gst.bindings import GObject, Gst
from posesdk.gst.factories import FACTORIES
from posesdk.gst.plugin_packages import advice_for

__all__ = ["describe_element", "list_elements"]

_METADATA = ("Long-name", "Klass", "Description", "Author")
_NUMBERS = {
    "gint": "Integer",
    "guint": "Unsigned Integer",
    "gint64": "Integer64",
    "guint64": "Unsigned Integer64",
    "glong": "Long",
    "gulong": "Unsigned Long",
    "gfloat": "Float",
    "gdouble": "Double",
}
_RANKS = (Gst.Rank.NONE, Gst.Rank.MARGINAL, Gst.Rank.SECONDARY, Gst.Rank.PRIMARY)
_FLAGS = (
    (GObject.ParamFlags.READABLE, "readable"),
    (GObject.ParamFlags.WRITABLE, "writable"),
    (GObject.ParamFlags.DEPRECATED, "deprecated"),
    (Gst.PARAM_CONTROLLABLE, "controllable"),
)
_MUTABLE = (
    (Gst.PARAM_MUTABLE_PLAYING, "changeable in NULL, READY, PAUSED or PLAYING state"),
    (Gst.PARAM_MUTABLE_PAUSED, "changeable only in NULL, READY or PAUSED state"),
    (Gst.PARAM_MUTABLE_READY, "changeable only in NULL or READY state"),
)
_SYSTEM_MEMORY = Gst.CapsFeatures.from_string("memory:SystemMemory")
_AVAILABILITY = {
    Gst.PadPresence.ALWAYS: "Always",
    Gst.PadPresence.SOMETIMES: "Sometimes",
    Gst.PadPresence.REQUEST: "On request",
}


def list_elements() -> Iterator[str]:
    """A line for each element of this package."""
    for name, _, _ in FACTORIES:
        factory = Gst.ElementFactory.find(name)
        yield f"{name}: {factory.get_metadata('long-name')}"


def describe_element(name: str) -> str:
    """Everything about an element, ending in a line break. Raises ValueError where there is none of that name."""
    factory = Gst.ElementFactory.find(name)
    element = factory.create(f"{name}0") if factory is not None else None
    if element is None:
        raise ValueError(f'cannot describe it: no element "{name}"{advice_for(f"""no element "{name}" """)}')
    parts = [_factory(factory), _plugin(factory), _hierarchy(element), _templates(factory), _pads(element)]
    texts = ["\n".join(part) for part in (*parts, _properties(element), _signals(element))]
    return "\n\n".join(filter(None, texts)) + "\n"


def _row(name: str, text: object) -> str:
    return f"  {name:24} {text}"


def _factory(factory: Any) -> Iterator[str]:
    yield "Factory Details:"
    rank = int(factory.get_rank())
    floor, word = max((int(known), known.value_nick) for known in _RANKS if int(known) <= rank)
    yield _row("Rank", f"{word} ({rank})" if floor == rank else f"{word} + {rank - floor} ({rank})")
    for key in _METADATA:
        yield _row(key, factory.get_metadata(key.lower()))


def _plugin(factory: Any) -> Iterator[str]:
    yield "Plugin Details:"
    plugin = factory.get_plugin()
    if plugin is None:
        yield "  none: registered in this process by posesdk"
        return
    yield _row("Name", plugin.get_name())
    yield _row("Description", plugin.get_description())
    yield _row("Filename", plugin.get_filename())
    yield _row("Version", plugin.get_version())
    yield _row("License", plugin.get_license())


def _kinds(element: Any) -> list[Any]:
    """The element's type and the ones that it is made from, up to GObject."""
    kinds = [type(element).__gtype__]
    while kinds[-1].name != "GObject":
        kinds.append(kinds[-1].parent)
    return kinds


def _hierarchy(element: Any) -> Iterator[str]:
    for depth, kind in enumerate(reversed(_kinds(element))):
        yield kind.name if depth == 0 else f"{' ' * (6 * depth - 5)}+----{kind.name}"


def _templates(factory: Any) -> Iterator[str]:
    yield "Pad Templates:"
    for template in reversed(factory.get_static_pad_templates()):
        yield f"  {template.direction.value_nick.upper()} template: '{template.name_template}'"
        yield f"    Availability: {_AVAILABILITY[template.presence]}"
        yield "    Capabilities:"
        yield from _caps(template.get_caps())


def _caps(caps: Any) -> Iterator[str]:
    if caps.is_any() or caps.is_empty():
        yield "      ANY" if caps.is_any() else "      EMPTY"
        return
    for index in range(caps.get_size()):
        structure, features = _structure(caps, index), caps.get_features(index)
        plain = features is None or (not features.is_any() and features.is_equal(_SYSTEM_MEMORY))
        yield f"      {structure.get_name()}" + ("" if plain else f"({features.to_string()})")
        for name, text in _fields(structure):
            yield f"{name:>23}: {text}"


def _structure(caps: Any, index: int) -> Any:
    """One of the structures of caps; the bindings of GStreamer 1.26 give it to a `with` statement only."""
    found = caps.get_structure(index)
    if isinstance(found, Gst.Structure):
        return found
    with found as structure:
        return structure


def _fields(structure: Any) -> list[tuple[str, str]]:
    """Values as GStreamer itself writes them: not every kind of range becomes a Python value."""
    fields = []
    for index in range(structure.n_fields()):
        name = structure.nth_field_name(index)
        alone = structure.copy()
        for other in [structure.nth_field_name(at) for at in range(structure.n_fields())]:
            if other != name:
                alone.remove_field(other)
        text = alone.to_string().partition("=")[2].rstrip(";")
        fields.append((name, text.partition(")")[2] if text.startswith("(") else text))
    return fields


def _pads(element: Any) -> Iterator[str]:
    yield "Pads:"
    if not element.pads:
        yield "  none"
    for pad in element.pads:
        yield f"  {pad.get_direction().value_nick.upper()}: '{pad.get_name()}'"
        template = pad.get_pad_template()
        if template is not None:
            yield f"    Pad Template: '{template.name_template}'"


def _properties(element: Any) -> Iterator[str]:
    yield "Element Properties:"
    specs = sorted(GObject.list_properties(element), key=lambda spec: spec.name)
    width = max(len(spec.name) for spec in specs)
    for spec in specs:
        yield f"  {spec.name:{width}} : {spec.blurb}"
        for line in (f"flags: {_flags(spec)}", _kind(spec, element), *_choices(spec, element)):
            yield " " * (width + 5) + line


def _flags(spec: Any) -> str:
    bits = int(spec.flags)
    words = [word for flag, word in _FLAGS if bits & int(flag)]
    return ", ".join(words + [word for flag, word in _MUTABLE if bits & int(flag)][:1])


def _kind(spec: Any, element: Any) -> str:
    """The type, its range, and the value of a new element, which may differ from the class's own default."""
    kind = spec.value_type
    plain = kind.name in _NUMBERS or kind in (GObject.TYPE_BOOLEAN, GObject.TYPE_STRING) or kind.is_a(GObject.TYPE_ENUM)
    readable = plain and int(spec.flags) & int(GObject.ParamFlags.READABLE)
    default: Any = element.get_property(spec.name) if readable else getattr(spec, "default_value", None)
    if kind.name in _NUMBERS:
        least, most, default = (_number(value) for value in (spec.minimum, spec.maximum, default))
        return f"{_NUMBERS[kind.name]}. Range: {least} - {most} Default: {default}"
    if kind == GObject.TYPE_BOOLEAN:
        return f"Boolean. Default: {str(default).lower()}"
    if kind == GObject.TYPE_STRING:
        return "String. Default: " + ("null" if default is None else f'"{default}"')
    if kind.is_a(GObject.TYPE_ENUM):
        return f'Enum "{kind.name}" Default: {int(default)}, "{default.value_nick}"'
    if kind.is_a(GObject.TYPE_OBJECT):
        return f'Object of type "{kind.name}"'
    return f'Boxed pointer of type "{kind.name}"' if kind.is_a(GObject.TYPE_BOXED) else f'Value of type "{kind.name}"'


def _number(value: float) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _choices(spec: Any, element: Any) -> list[str]:
    """From a value: not every PyGObject gives the names of an enumeration with the description of a property."""
    if not spec.value_type.is_a(GObject.TYPE_ENUM) or not int(spec.flags) & int(GObject.ParamFlags.READABLE):
        return []
    values = type(element.get_property(spec.name)).__enum_values__
    return [f"   ({number}): {value.value_nick:16} - {value.value_name}" for number, value in sorted(values.items())]


def _signals(element: Any) -> Iterator[str]:
    """Those of the element itself: not what every element, bin and object has."""
    kinds = [kind for kind in _kinds(element) if not GObject.type_is_a(Gst.Bin.__gtype__, kind)]
    queries = [GObject.signal_query(number) for kind in kinds for number in GObject.signal_list_ids(kind)]
    if queries:
        yield "Element Signals:"
    for query in queries:
        named = [f"{kind.name} arg{index}" for index, kind in enumerate(query.param_types)]
        arguments = ", ".join(("GstElement* object", *named, "gpointer user_data"))
        yield f'  "{query.signal_name}" :  {query.return_type.name} user_function ({arguments});'
