import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nearfield import machine
from nearfield.libraries import LIBRARIES, library_facts, loaded_threads
from nearfield.machine import (
    Limits,
    available_cores,
    control_group_limits,
    existing_folder,
    machine_facts,
    processor_from,
)

INTEL = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum
flags\t\t: fpu sse4_2 avx avx2 fma avx512f avx512_bf16 amx_tile amx_bf16

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd sve sve2 bf16\n"


class TestProcessor:
    def test_the_first_processor_counts(self):
        found = processor_from(INTEL, "x86_64")
        assert found.model == "Intel(R) Xeon(R) Platinum"
        assert set(found.features) == {
            *("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16"),
        }

    def test_arm_names_its_features_otherwise(self):
        found = processor_from(ARM, "aarch64")
        assert set(found.features) == {"asimd", "sve", "sve2", "bf16"}

    def test_an_unreadable_description_is_no_error(self):
        assert processor_from("", "riscv64").features == ()


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (1.5, 1), (0.2, 1), (3.0, 3), (64.0, 8)])
def test_a_containers_share_of_time_counts_as_cores(monkeypatch, quota, cores):
    monkeypatch.setattr(machine, "control_group_limits", lambda: Limits(quota, None))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)))
    machine._core_limit.cache_clear()
    try:
        assert available_cores() == machine_facts().cores == cores
    finally:
        machine._core_limit.cache_clear()


class TestControlGroups:
    def test_version_2(self, tmp_path):
        root = plant(
            tmp_path,
            {
                "proc/self/cgroup": "0::/system.slice/job.service\n",
                "sys/fs/cgroup/system.slice/memory.max": "max\n",
                "sys/fs/cgroup/system.slice/job.service/memory.max": "1073741824\n",
                "sys/fs/cgroup/system.slice/job.service/cpu.max": "150000 100000\n",
            },
        )
        limits = control_group_limits(root)
        assert (limits.cores, limits.memory_bytes) == (1.5, 1 << 30)

    def test_the_tightest_of_all_levels_holds(self, tmp_path):
        root = plant(
            tmp_path,
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "1000\n",
                "sys/fs/cgroup/a/b/memory.max": "2000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            },
        )
        limits = control_group_limits(root)
        assert (limits.cores, limits.memory_bytes) == (None, 1000)

    def test_version_1_in_a_container_that_sees_its_group_as_the_root(self, tmp_path):
        root = plant(
            tmp_path,
            {
                "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
        )
        limits = control_group_limits(root)
        assert (limits.cores, limits.memory_bytes) == (2.0, 2 << 30)

    def test_version_1_without_limits(self, tmp_path):
        root = plant(
            tmp_path,
            {
                "proc/self/cgroup": "4:memory:/\n3:cpu:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
        )
        limits = control_group_limits(root)
        assert (limits.cores, limits.memory_bytes) == (None, None)

    def test_no_control_groups_at_all(self, tmp_path):
        assert control_group_limits(tmp_path).memory_bytes is None


class TestMachine:
    def test_the_facts_agree_with_what_the_system_says(self, tmp_path):
        found = machine_facts(tmp_path)
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert 1 <= found.cores <= found.cores_present
        assert 0 < found.memory_available_bytes <= found.memory_total_bytes <= pages
        assert found.disk_free_bytes > 0
        assert found.python == ".".join(map(str, sys.version_info[:3]))
        assert json.loads(json.dumps(found.to_json()))["cores"] == found.cores

    def test_a_pinned_process_has_fewer_cores(self):
        code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        code += "from nearfield.machine import machine_facts; print(machine_facts().cores)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout == b"1\n"

    def test_a_folder_to_be_made_is_judged_by_the_one_above(self, tmp_path):
        assert existing_folder(tmp_path / "not" / "yet") == tmp_path.resolve()
        assert machine_facts(tmp_path / "not" / "yet").disk_free_bytes > 0


@pytest.fixture(scope="module")
def libraries():
    return {library.name: library for library in library_facts()}


class TestLibraries:
    def test_all_that_nearfield_needs_are_there(self, libraries):
        assert set(libraries) == set(LIBRARIES)
        needed = {"numpy", "faiss", "numba", "h5py", "pyarrow", "dask", "distributed", "psycopg2"}
        assert {name for name in needed if libraries[name].state != "ok"} == set()

    def test_each_says_how_it_was_built_and_by_whom(self, libraries):
        import faiss

        assert libraries["numpy"].version == np.__version__
        assert faiss.get_compile_options().strip() in libraries["faiss"].built
        assert libraries["faiss"].distribution == "faiss-cpu"
        assert "blas" in libraries["numpy"].built.lower()
        assert "HDF5" in libraries["h5py"].built
        assert libraries["dask"].package == "pure Python"

    def test_annoy_says_whether_it_is_a_wheel_or_was_built_here(self, libraries):
        annoy = libraries["annoy"]
        if annoy.state == "not installed":
            pytest.skip("annoy isn't installed")
        kind = "wheel" if annoy.distribution == "annoy-mm" else "built here"
        assert annoy.package.startswith(kind)

    def test_threads_are_those_of_this_environment(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
        threads = {library.name: library.threads for library in library_facts(("faiss", "numba"))}
        assert threads == {"faiss": 1, "numba": 1}

    def test_threads_of_this_process_are_told_as_they_are_set_now(self):
        import faiss

        before = faiss.omp_get_max_threads()
        try:
            faiss.omp_set_num_threads(7)
            assert loaded_threads()["faiss"] == 7
        finally:
            faiss.omp_set_num_threads(before)

    def test_a_missing_library_is_a_fact(self):
        (missing,) = library_facts(("no_such_library",))
        assert missing.state == "not installed"

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("import no_such_library", "No module named 'no_such_library'"),
            ("raise ImportError('libgomp.so.1: not found')", "ImportError: libgomp.so.1"),
            ("raise SystemExit(3)", "exit code 3"),
            (
                f"import os; os.kill(os.getpid(), {signal.SIGILL.value})",
                "killed by SIGILL when imported: built for another processor?",
            ),
        ],
    )
    def test_a_broken_library_is_a_fact(self, tmp_path, monkeypatch, content, said):
        (tmp_path / "broken_library.py").write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
        (broken,) = library_facts(("broken_library",))
        assert broken.state == "broken"
        assert said in broken.error

    def test_a_talkative_library_stays_unheard(self, tmp_path, monkeypatch, capfd):
        said = "a notice: this binary was not compiled to use: AVX AVX2"
        (tmp_path / "talkative.py").write_text(f"print({said!r}, flush=True)")
        monkeypatch.syspath_prepend(tmp_path)
        (found,) = library_facts(("talkative",))
        assert (found.state, found.built) == ("ok", "without AVX AVX2")
        assert capfd.readouterr() == ("", "")
