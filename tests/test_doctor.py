import json
import os
from dataclasses import dataclass, replace

import pytest

from nearfield.doctor import (
    THREAD_VARIABLES,
    examine,
    judged_database,
    judged_library,
    judged_machine,
)
from nearfield.errors import DatabaseError
from nearfield.libraries import Library
from nearfield.machine import Limits, Machine, Processor

GIB = 1 << 30
GOOD = Machine(
    system="Linux",
    python="3.12.1",
    processor=Processor("Zen", "x86_64", ("avx2", "avx512f")),
    cores_present=8,
    cores=8,
    memory_total_bytes=32 * GIB,
    memory_available_bytes=30 * GIB,
    disk_free_bytes=100 * GIB,
    limits=Limits(None, None),
)


@dataclass(frozen=True)
class Rights:
    server_version: str = "17.2"
    user: str = "loader"
    database: str = "music"
    may_load: bool = True
    schema_owner: str | None = None
    temporary: bool = True
    read_role: bool = True
    sees_readers: bool = True


def machine_finding(name, folder, **changes):
    findings = judged_machine(replace(GOOD, **changes), folder)
    return next(finding for finding in findings if finding.name == name)


class TestMachine:
    def test_a_good_machine_has_nothing_to_say(self, tmp_path):
        findings = list(judged_machine(GOOD, tmp_path))
        assert {finding.level for finding in findings} == {"ok"}
        assert all(finding.advice == "" for finding in findings)
        names = [finding.name for finding in findings]
        assert names == ["python", "processor", "cores", "memory", "disk"]

    def test_little_memory_is_warned_of(self, tmp_path):
        found = machine_finding("memory", tmp_path, memory_available_bytes=2 * GIB - 1)
        assert found.level == "warn"
        assert "--workers 1" in found.advice
        assert found.found == "2.0 GiB free of 32.0 GiB"

    def test_little_disk_is_warned_of(self, tmp_path):
        assert machine_finding("disk", tmp_path, disk_free_bytes=5 * GIB - 1).level == "warn"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_cant_be_written_fails(self, tmp_path):
        tmp_path.chmod(0o500)
        assert machine_finding("disk", tmp_path).level == "fail"

    def test_no_avx2_is_warned_of_where_there_could_be(self, tmp_path):
        old = Processor("Core 2", "x86_64", ("sse4_2",))
        assert machine_finding("processor", tmp_path, processor=old).level == "warn"
        arm = Processor("Neoverse", "aarch64", ("asimd",))
        assert machine_finding("processor", tmp_path, processor=arm).level == "ok"

    def test_a_control_group_is_named(self, tmp_path):
        found = machine_finding("cores", tmp_path, cores=1, limits=Limits(1.5, None))
        assert found.found == "1 usable of 8, control group allows 1.5"


class TestLibraries:
    def test_one_thread_of_many_names_the_variable_that_does_it(self, monkeypatch):
        for name in THREAD_VARIABLES:
            monkeypatch.delenv(name, raising=False)  # a cluster of another test may have left some
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        found = judged_library(Library("faiss", "ok", version="1.15", threads=1), 8)
        assert found.level == "warn"
        assert "uses 1 thread of 8 cores; because of OMP_NUM_THREADS=1: unset it" in found.advice

    def test_one_thread_of_one_core_is_right(self):
        assert judged_library(Library("faiss", "ok", version="1.15", threads=1), 1).level == "ok"

    @pytest.mark.parametrize(
        ("name", "state", "level"),
        [
            ("faiss", "not installed", "fail"),
            ("faiss", "broken", "fail"),
            ("annoy", "not installed", "warn"),
            ("annoy", "broken", "warn"),
            ("hnswlib", "not installed", "ok"),
        ],
    )
    def test_what_is_missing_is_judged_by_who_needs_it(self, name, state, level):
        found = judged_library(Library(name, state, error="why"), 8)
        assert found.level == level
        assert bool(found.advice) == (level != "ok")

    def test_a_library_is_described_in_one_line(self):
        library = Library("annoy", "ok", "1.17.3", "annoy-mm", "wheel (manylinux)", "AVX", 2)
        found = judged_library(library, 8).found
        assert found == "annoy-mm 1.17.3, wheel (manylinux), AVX, 2 threads"


class TestDatabase:
    def test_rights_are_told(self):
        found = judged_database(Rights)
        assert (found.level, found.found) == ("ok", "Postgres 17.2, music as loader")

    def test_a_reader_is_told_what_it_takes_to_load(self):
        found = judged_database(lambda: Rights(may_load=False))
        assert found.level == "fail"
        assert "GRANT CREATE, TEMPORARY ON DATABASE music TO loader" in found.advice
        found = judged_database(lambda: Rights(may_load=False, schema_owner="other"))
        assert "connect as other" in found.advice

    @pytest.mark.parametrize(
        ("lacks", "level", "advice"),
        [
            ("temporary", "fail", "GRANT TEMPORARY ON DATABASE music TO loader"),
            ("read_role", "warn", "CREATE ROLE nearfield_read"),
            ("sees_readers", "warn", "GRANT pg_read_all_stats TO loader"),
        ],
    )
    def test_what_a_load_goes_without_comes_with_advice(self, lacks, level, advice):
        found = judged_database(lambda: replace(Rights(), **{lacks: False}))
        assert found.level == level
        assert advice in found.advice

    def test_no_answer_is_a_finding(self):
        def refuse():
            raise DatabaseError("no connection to Postgres at host=x: is it running?")

        found = judged_database(refuse)
        assert found.level == "fail"
        assert "is it running?" in found.advice


class TestExamine:
    def test_the_worst_finding_counts(self, tmp_path):
        diagnosis = examine(directory=tmp_path, database=lambda: Rights(may_load=False))
        assert diagnosis.level == "fail"
        assert diagnosis.findings[-1].name == "database"

    def test_this_machine_can_work_and_the_facts_stand_beside(self, tmp_path, capfd):
        diagnosis = examine(directory=tmp_path)
        assert diagnosis.level != "fail", diagnosis.findings
        assert "database" not in {finding.name for finding in diagnosis.findings}
        kept = json.loads(json.dumps(diagnosis.to_json()))
        assert kept["machine"]["cores"] == diagnosis.machine.cores
        assert {library["name"] for library in kept["libraries"]} >= {"faiss", "annoy"}
        assert capfd.readouterr() == ("", "")
