"""Which runs readers saw before the published one: the way back.

A publication goes on from what readers see; a rollback undoes it. So a run that a rollback took
off readers isn't on the way back, however late it was published. Refuses to move the pointer.
"""

from typing import Any


def seen_before(cursor: Any) -> list[int]:
    """Runs that readers saw before the published one and that can be published, the last first.

    Runs of before publications were recorded follow, by the time at which they were published.
    """
    cursor.execute("SELECT run_id, action FROM nearfield.publications ORDER BY publication_id")
    way = list[int]()
    recorded = set[int]()
    for run_id, action in cursor.fetchall():
        recorded.add(run_id)
        if action == "rollback":
            # to one of before publications were recorded: then all of the way is undone
            while way and way[-1] != run_id:
                way.pop()
        if not way or way[-1] != run_id:
            way.append(run_id)
    cursor.execute(
        "SELECT run_id FROM nearfield.runs WHERE NOT dropping AND loaded_at IS NOT NULL"
        " AND published_at IS NOT NULL AND run_id <> (SELECT run_id FROM nearfield.current_run)"
        " ORDER BY published_at DESC"
    )
    there = [run_id for (run_id,) in cursor.fetchall()]
    before = [run_id for run_id in reversed(way[:-1]) if run_id in there]
    return list(dict.fromkeys([*before, *(it for it in there if it not in recorded)]))
