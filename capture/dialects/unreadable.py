"""Tool arguments that are no JSON object, counted as damage."""

from collections.abc import Iterable

from capture.turn import Damage, Diagnostic, ToolCall


def unreadable_input(calls: Iterable[ToolCall]) -> tuple[Diagnostic, ...]:
    """One diagnostic with the first such call's name, or none."""
    bad = [call.name for call in calls if call.arguments is None]
    return (Diagnostic(Damage.UNPARSEABLE_TOOL_INPUT, len(bad), bad[0][:200]),) if bad else ()
