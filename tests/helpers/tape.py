"""A record of what happened, in order."""

from __future__ import annotations

from typing import Any, NamedTuple


class Event(NamedTuple):
    """Something that happened, with its circumstances."""

    name: str
    details: dict[str, Any]


class Tape:
    """Takes events from environments and callbacks."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, name: str, **details: Any) -> None:
        """Append an event."""
        self.events.append(Event(name, details))

    def named(self, name: str, **details: Any) -> list[Event]:
        """Return the events of a name whose details include the given ones."""
        return [
            event
            for event in self.events
            if event.name == name and details.items() <= event.details.items()
        ]
