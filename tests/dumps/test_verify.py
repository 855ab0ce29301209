import json
import os
import random

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dumps import recall as recall_module
from dumps.recall import recall_of, true_kth
from dumps.verify import verify_run
from nearfield.errors import InputRejected, MissingFile, UsageError
from nearfield.run import Run
from tests.dumps.small_run import agree, alter, exact_lists, small_run

SPACES = ("l2", "cosine", "ip")


def gaussian(n, d=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.fixture
def run(tmp_path):
    return small_run(tmp_path, gaussian(200))


def problems(run, **options):
    return " | ".join(verify_run(run, **options).problems)


class TestSound:
    @pytest.mark.parametrize("space", SPACES)
    def test_exact_lists_pass_with_full_recall(self, tmp_path, space):
        report = verify_run(small_run(tmp_path, gaussian(300), space=space, k=10))
        assert report.passed, report.problems
        assert (report.recall, report.recall_low, report.recall_high) == (1.0, 1.0, 1.0)
        assert (report.sample, report.checked_rows, report.n, report.k) == (300, 300, 300, 10)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        vectors=hnp.arrays(
            np.float32,
            st.tuples(st.integers(2, 25), st.integers(1, 4)),
            # few values: many equal vectors and tied distances
            elements=st.sampled_from([1.0, 2.0, 3.0, -1.5, 1e4, 1e-4]),
        ),
        space=st.sampled_from(SPACES),
        k=st.integers(1, 30),
    )
    def test_any_exact_matrix_passes(self, tmp_path_factory, vectors, space, k):
        run = small_run(tmp_path_factory.mktemp("any"), vectors, space=space, k=k)
        report = verify_run(run)
        assert report.passed, report.problems
        assert report.recall == 1.0

    def test_the_report_is_kept_as_json(self, run):
        report = verify_run(run, sample=50, seed=3)
        kept = json.loads(run.verification.read_text())
        assert kept == json.loads(json.dumps(report.to_json()))
        assert kept["passed"] is True
        assert (kept["sample"], kept["seed"], kept["asked"]) == (50, 3, 0.95)
        assert kept["matrix_sha256"] == run.finished_matrix().files["matrix.h5"].sha256
        assert kept["run_fingerprint"] == run.config.fingerprint

    def test_nonsense_is_refused(self, run):
        for options in ({"sample": 0}, {"recall": 0.0}, {"recall": 1.1}):
            with pytest.raises(UsageError):
                verify_run(run, **options)


def at(name, place, value):
    def change(file):
        file[name][place] = value

    return change


def swapped_rows(file):
    for name in ("neighbours", "distances"):
        rows = file[name][[10, 20]]
        file[name][10], file[name][20] = rows[1], rows[0]


def swapped_places(file):
    for name in ("neighbours", "distances"):
        file[name][10] = file[name][10][[1, 0, 2, 3, 4]]


def duplicate(file):
    for name in ("neighbours", "distances"):
        row = file[name][10]
        row[2] = row[1]
        file[name][10] = row


def permuted_ids(file):
    file["recording_ids"][:2] = file["recording_ids"][:2][::-1]


def wrong_distance(file):
    row = file["distances"][10]
    row[-1] *= 1.0001
    file["distances"][10] = row


def unwritten(file):
    del file["neighbours"]
    file.create_dataset("neighbours", (200, 5), "<i4", chunks=(50, 5), fillvalue=0)[:150] = 1


def reshaped(file):
    values = file["distances"][:, :4]
    del file["distances"]
    file["distances"] = values


def retyped(file):
    values = file["neighbours"][...].astype(np.int64)
    del file["neighbours"]
    file["neighbours"] = values


def renamed(file):
    file.move("recording_ids", "ids")


FAULTS = {
    "itself": (at("neighbours", (10, 0), 10), "1 rows name themselves (first: row 10)"),
    "duplicate": (duplicate, "1 rows name a neighbour twice (first: row 10)"),
    "out of range": (at("neighbours", (10, 0), 200), "name a row outside 0..199 (first: row 10)"),
    "negative": (at("neighbours", (10, 0), -7), "name a row outside 0..199"),
    "empty place": (at("neighbours", (10, 4), -1), "1 rows have an empty place (first: row 10)"),
    "unsorted": (swapped_places, "aren't sorted by (distance, neighbour) (first: row 10)"),
    "NaN": (at("distances", (10, 2), np.nan), "isn't a finite number (first: row 10)"),
    "infinite": (at("distances", (10, 4), np.inf), "isn't a finite number (first: row 10)"),
    "negative distance": (at("distances", (10, 0), -1), "negative distance (first: row 10)"),
    "wrong distance": (wrong_distance, "distance that isn't the true one (first: row 10)"),
    "swapped rows": (swapped_rows, "2 rows of the sample have a distance that isn't the true one"),
    "permuted ids": (permuted_ids, "2 rows have another recording id"),
    "hole": (unwritten, "neighbours has holes: 3 of 4 chunks were written"),
    "shape": (reshaped, "distances has shape (200, 4)"),
    "type": (retyped, "neighbours holds int64 instead of int32"),
    "name": (renamed, "there is no dataset recording_ids"),
    "fingerprint": (lambda file: file.attrs.modify("run_fingerprint", "x"), "run_fingerprint"),
    "space": (lambda file: file.attrs.create("space", np.array(["l2", "ip"], "S2")), "space"),
}


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_planted_fault_is_found_and_named(self, run, fault):
        change, said = FAULTS[fault]
        alter(run, change)
        report = verify_run(run)
        assert not report.passed
        assert said in " | ".join(report.problems)

    def test_a_file_changed_after_its_manifest_is_found(self, run):
        content = bytearray(run.matrix.read_bytes())
        content[len(content) // 2] ^= 1
        run.matrix.write_bytes(content)
        assert "doesn't match its manifest" in problems(run)

    def test_a_flipped_bit_under_an_agreeing_manifest_is_found(self, run):
        with h5py.File(run.matrix) as file:
            place = file["neighbours"].id.get_chunk_info(0).byte_offset
        content = bytearray(run.matrix.read_bytes())
        content[place + 40] ^= 4
        run.matrix.write_bytes(content)
        agree(run)
        assert "matrix.h5 can't be read" in problems(run)

    @pytest.mark.parametrize("agreeing", [False, True])
    def test_a_truncated_file_is_found(self, run, agreeing):
        os.truncate(run.matrix, run.matrix.stat().st_size // 2)
        if agreeing:
            agree(run)
        report = verify_run(run)
        assert not report.passed
        assert ("can't be read" if agreeing else "was truncated") in report.problems[-1]
        assert (report.sample, report.recall, report.checked_rows) == (0, 0.0, 0)

    def test_a_matrix_of_another_run_is_found(self, run, tmp_path):
        other = small_run(tmp_path / "other", gaussian(200), k=6)
        run.matrix.write_bytes(other.matrix.read_bytes())
        manifest = run.matrix.with_suffix(".json")
        manifest.write_bytes(other.matrix.with_suffix(".json").read_bytes())
        assert f"made by run {other.config.fingerprint}" in problems(run)

    @pytest.mark.parametrize("name", ["vectors.npy", "recordings.parquet", "space.json"])
    def test_a_changed_vector_set_is_found(self, run, tmp_path, name):
        with (tmp_path / "vectors" / name).open("ab") as stream:
            stream.write(b"\0")
        report = verify_run(run)
        assert "isn't the one that the run was made from" in report.problems[0]
        assert report.sample == 0

    def test_a_vector_set_or_matrix_that_is_gone_is_an_error(self, run, tmp_path):
        (tmp_path / "vectors").rename(tmp_path / "moved")
        with pytest.raises(MissingFile, match="vector set"):
            verify_run(run)
        (tmp_path / "moved").rename(tmp_path / "vectors")
        run.matrix.with_suffix(".json").unlink()
        with pytest.raises(MissingFile):
            verify_run(run)

    def test_values_in_other_files_are_refused(self, run, tmp_path):
        with h5py.File(tmp_path / "foreign.h5", "w") as foreign:
            foreign["values"] = np.zeros((200, 5), np.float32)

        def linked(file):
            file.move("distances", "kept")
            file["distances"] = h5py.ExternalLink(tmp_path / "foreign.h5", "values")

        def virtual(file):
            layout = h5py.VirtualLayout((200, 5), np.float32)
            layout[:] = h5py.VirtualSource(tmp_path / "foreign.h5", "values", (200, 5))
            del file["distances"]
            file.create_virtual_dataset("distances", layout)

        def external(file):
            del file["distances"]
            outside = [(str(tmp_path / "foreign.h5"), 0, 4000)]
            file.create_dataset("distances", (200, 5), "<f4", external=outside)

        for change, said in (
            (linked, "distances is a link to somewhere else"),
            (virtual, "lie in other files"),
            (external, "lie in other files"),
        ):
            alter(run, change)
            assert said in problems(run)


class TestRecall:
    def with_misses(self, folder, share, n=400, k=10):
        """Exact lists in which a share of the neighbours gave way to farther ones, in order."""
        vectors = gaussian(n)
        everyone, distances = exact_lists(vectors, n - 1, "l2")
        rng = np.random.default_rng(1)
        missed = round(share * k)
        places = np.array(
            [
                np.sort(
                    np.concatenate(
                        [
                            rng.choice(k, k - missed, replace=False),
                            rng.choice(np.arange(k, n - 1), missed, replace=False),
                        ]
                    )
                )
                for _ in range(n)
            ]
        )
        lists = np.take_along_axis(everyone, places, 1), np.take_along_axis(distances, places, 1)
        return small_run(folder, vectors, k=k, lists=lists)

    def test_misses_with_true_distances_fail_by_recall_alone(self, tmp_path):
        report = verify_run(self.with_misses(tmp_path, 0.3))
        assert report.recall == pytest.approx(0.7)
        assert not report.passed
        assert len(report.problems) == 1
        assert "is below the 0.95 that was asked for" in report.problems[0]

    def test_a_lower_demand_lets_them_pass(self, tmp_path):
        run = self.with_misses(tmp_path, 0.3)
        assert verify_run(run, recall=0.65).passed
        assert not verify_run(run, recall=0.75).passed

    @pytest.mark.parametrize("space", SPACES)
    def test_any_of_the_tied_ones_count(self, tmp_path, space):
        vectors = gaussian(60)
        vectors[:30] = vectors[0] * 3
        near, distances = exact_lists(vectors, 5, space)
        tied = random.Random(0)
        for row in range(30):
            if space != "ip":
                near[row] = sorted(tied.sample([r for r in range(30) if r != row], 5))
        report = verify_run(small_run(tmp_path, vectors, space=space, lists=(near, distances)))
        assert report.passed, report.problems
        assert report.recall == 1.0

    def test_multiples_of_a_vector_are_tied_under_cosine(self, tmp_path):
        vectors = gaussian(60)
        vectors[:30] = vectors[0] * np.linspace(0.01, 90, 30, dtype=np.float32)[:, None]
        lists = exact_lists(vectors, 5, "cosine")
        for row in range(30):
            lists[0][row] = [other for other in range(30) if other != row][-5:]
            lists[1][row] = 0
        report = verify_run(small_run(tmp_path, vectors, space="cosine", lists=lists))
        assert report.passed, report.problems
        assert report.recall == 1.0

    @pytest.mark.parametrize("space", SPACES)
    def test_the_search_doesnt_depend_on_its_blocks(self, monkeypatch, space):
        vectors, k = gaussian(50), 9
        monkeypatch.setattr(recall_module, "BLOCK", 7)
        monkeypatch.setattr(recall_module, "QUERIES", 11)
        expected = exact_lists(vectors, k, space)[1][:, -1]
        np.testing.assert_allclose(true_kth(np.arange(50), vectors, k, space), expected, rtol=1e-6)

    def test_equal_vectors_far_from_the_origin_have_distance_zero(self):
        vectors = gaussian(40) + np.float32(1e6)
        vectors[:10] = vectors[0]
        assert (true_kth(np.arange(10), vectors, 9, "l2") == 0).all()
        assert (true_kth(np.arange(10), vectors, 10, "l2") > 0).all()

    def test_distances_far_from_the_origin_are_ranked_by_differences(self):
        vectors = gaussian(300) * np.float32(0.01) + np.float32(1000)
        expected = exact_lists(vectors, 20, "l2")[1][:, -1]
        found = true_kth(np.arange(300), vectors, 20, "l2")
        np.testing.assert_allclose(found, expected, rtol=1e-7)

    def test_a_zero_vector_under_cosine_is_an_error(self):
        vectors = gaussian(40)
        vectors[30] = 0
        with pytest.raises(InputRejected, match="zero vector"):
            true_kth(np.arange(10), vectors, 3, "cosine")

    def test_the_interval_covers_the_truth_19_times_of_20(self):
        n, k, m = 5000, 10, 300
        rng = np.random.default_rng(0)
        found = rng.random((n, k)) < rng.beta(9, 1, size=(n, 1))
        truth = found.mean()
        covered = 0
        for seed in range(400):
            rows = np.random.default_rng(seed).choice(n, m, replace=False)
            interval = recall_of(found[rows], n)
            covered += interval.low <= truth <= interval.high
        assert 0.92 <= covered / 400 <= 0.98

    def test_the_interval_is_a_point_when_all_rows_were_asked(self):
        found = np.random.default_rng(0).random((50, 4)) < 0.5
        interval = recall_of(found, 50)
        assert interval.low == interval.mean == interval.high == found.mean()


class TestLabels:
    def labelled(self, folder, **labels) -> Run:
        return small_run(folder, gaussian(120), k=12, labels=labels)

    def test_shares_are_those_of_a_plain_count(self, tmp_path):
        chosen = random.Random(2)
        genre = [chosen.choice(["rock", "jazz", None, ""]) for _ in range(120)]
        run = self.labelled(tmp_path, genre=genre)
        with h5py.File(run.matrix) as file:
            near = file["neighbours"][:, :10].tolist()
        pairs = [(genre[row], genre[other]) for row in range(120) for other in near[row]]
        pairs = [(one, other) for one, other in pairs if one and other]
        named = [value for value in genre if value]
        chance = sum(named.count(v) * (named.count(v) - 1) for v in ("rock", "jazz"))
        found = verify_run(run).label_shares["genre"]
        assert found["values"] == 2
        assert found["share"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
        assert found["chance"] == pytest.approx(chance / (len(named) * (len(named) - 1)))

    def test_neighbours_share_a_label_that_follows_the_vectors(self, tmp_path):
        vectors = gaussian(120)
        side = np.where(np.arange(120) % 2, "left", "right")
        vectors[side == "left"] += 50
        run = small_run(tmp_path, vectors, labels={"side": side.tolist()})
        found = verify_run(run).label_shares["side"]
        assert found["share"] == 1.0
        assert 0.4 < found["chance"] < 0.6

    def test_only_columns_whose_values_repeat_are_labels(self, tmp_path):
        run = self.labelled(
            tmp_path,
            title=[f"title {row}" for row in range(120)],
            constant=["x"] * 120,
            nothing=[None] * 120,
            weight=[0.5, 1.5] * 60,
            year=[1999, 2000, 2001] * 40,
            live=[True, False] * 60,
        )
        assert set(verify_run(run).label_shares) == {"year", "live"}
