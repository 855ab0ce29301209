"""Tables as they are printed."""

from nearfield.cli.output import print_table


def test_ids_and_labels_come_out_as_they_are_in_a_pipe(capsys):
    label = "a title with words " * 20
    print_table(("recording_id", "title"), [("db:key:7", label), (label, ":heart:")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    assert "db:key:7" in lines[1]
    assert lines[1].endswith(label.rstrip())
    assert lines[2].endswith(":heart:")
