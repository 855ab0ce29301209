"""`publish`, `rollback`, `runs`, `prune` and `load --no-publish` as a user runs them."""

import pytest

pytestmark = pytest.mark.long


def test_what_is_loaded_is_listed_taken_back_published_and_pruned(at):
    nearfield = at("loaded")
    (listed,) = nearfield("runs", "--run", "run", "--json").json
    assert (listed["run_id"], listed["state"], listed["n"]) == (1, "current", 400)
    assert listed["recall"] == 1.0
    assert "current" in nearfield("runs").out  # the only database below the folder
    refused = nearfield("rollback", "--run", "run")
    assert refused.code == 2
    assert "no earlier published run" in refused.err
    # the same matrix without labels is a run of its own
    loaded = nearfield("load", "run", "--no-labels", "--no-publish")
    assert loaded.code == 0, loaded.err
    assert "nearfield publish 2 --run run" in loaded.out
    published = nearfield("publish", 2, "--run", "run", "--json")
    assert published.code == 0, published.err
    assert {gate["gate"]: gate["figure"] for gate in published.json["gates"]} == {
        "rows": 400,
        "recall": 1.0,
        "ranges": 0,
        "recall_drop": 0.0,
        "coverage": 1.0,
        "changed_rows": 0.0,
        "changed_neighbours": 0.0,
    }
    assert "run 1" in nearfield("rollback", "--run", "run").out
    planned = nearfield("prune", "--keep", 1, "--dry-run", "--run", "run")
    assert "would drop  2" in planned.out
    assert nearfield("prune", "--keep", 1, "--run", "run", "--json").json["dropped"] == [2]
    assert nearfield("publish", 2, "--run", "run").code == 2


@pytest.mark.parametrize("command", [["publish", "1"], ["rollback"], ["runs"], ["prune"]])
def test_without_a_database_the_message_says_what_to_name(nearfield, command):
    done = nearfield(*command)
    assert done.code == 2
    assert "found none" in done.err
    assert "Traceback" not in done.err
