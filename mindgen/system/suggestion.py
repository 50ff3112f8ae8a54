"""What somebody may have meant."""

import difflib
from collections.abc import Iterable

_SIMILAR = 0.6
_LONGEST = 1000  # letters of a name that may be a mistake


def closest(name: str, known: Iterable[str], likeness: float = _SIMILAR) -> str | None:
    """The known name that is most like it; None if none is as much.

    Args:
        likeness: 0 to 1, as difflib has it.
    """
    if len(name) > _LONGEST:
        return None
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)
    return found[0] if found else None


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """The known names, those first that are most like it."""
    names = list(known)
    return difflib.get_close_matches(name, names, n=max(1, len(names)), cutoff=0)


def did_you_mean(name: str, known: Iterable[str], likeness: float = _SIMILAR) -> str:
    """The same as a hint behind a name: " (did you mean it?)", or nothing."""
    found = closest(name, known, likeness)
    return "" if found is None else f" (did you mean {found}?)"
