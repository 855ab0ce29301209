"""Whether a group can be measured at all where it is asked: on its machine, or in its image."""

from benchmark.results.outcome import Status
from benchmark.runner.plan import Group
from benchmark.runner.store import Place


def obstacle(place: Place, group: Group) -> tuple[Status, str] | None:
    """What makes a group impossible, as status and sentence; None if nothing does."""
    method, space, settings = group.method, place.data.space, place.settings
    if settings.container is not None:
        if method.library in settings.lacking:
            needed = f"{method.name} needs the module {method.library}"
            return Status.NOT_INSTALLED, f"{needed}, which the image {settings.container} lacks"
    elif reason := method.unavailable():
        return Status.NOT_INSTALLED, reason
    if space not in method.spaces:
        known = ", ".join(sorted(method.spaces))
        return Status.UNSUPPORTED, f"{method.name} has no space {space}; it has {known}"
    if space not in group.configuration.spaces:
        return Status.UNSUPPORTED, f"the grid leaves {method.name} out in space {space}"
    wanted = set(settings.workloads)
    if not wanted & method.workloads:
        return Status.UNSUPPORTED, f"{method.name} can't do {' or '.join(sorted(wanted))}"
    return None
