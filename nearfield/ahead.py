"""The next item of an iterator made in a thread while the last one is used.

Owns that and nothing else.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items as they come, at most one of them made before it is asked for.

    What making one raises is raised where it is asked for.
    """
    iterator, ended = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, ended)
        while (item := coming.result()) is not ended:
            coming = pool.submit(next, iterator, ended)
            yield item  # type: ignore[misc]
