"""Archives: read as `tarfile` reads them, and harmless when they are hostile or broken."""

import io
import os
import tarfile

import pytest
import zstandard

from nearfield.errors import InputRejected, MissingFile
from nearfield.ingest.archives import Archive, Limits, is_archive_name
from tests.ingest.document_samples import COMPRESS, tar_bytes

SMALL = Limits(member_bytes=1000, members=50, ratio=20, ratio_free_bytes=1 << 16, name_bytes=4096)


def read(path, limits=SMALL):
    archive = Archive(path, limits)
    return [(member.name, member.content) for member in archive], archive


def written(tmp_path, content, name="a.tar"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def add(tar, name, content=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def made(tmp_path, fill, **options):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        fill(tar)
    return written(tmp_path, buffer.getvalue())


@pytest.mark.parametrize("suffix", COMPRESS)
def test_every_compression_gives_the_same_members(tmp_path, suffix):
    members = {f"x/{i}.json": bytes([65 + i]) * (i * 300) for i in range(4)}
    path = written(tmp_path, COMPRESS[suffix](tar_bytes(members)), "a.tar" + suffix)
    assert is_archive_name(path.name)
    assert read(path)[0] == list(members.items())


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compression_is_recognised_by_content_not_by_name(tmp_path, suffix):
    path = written(tmp_path, COMPRESS[suffix](tar_bytes({"a.json": b"{}"})), "misnamed.tar")
    assert read(path)[0] == [("a.json", b"{}")]


def test_a_zst_of_several_frames_is_read_to_its_end(tmp_path):
    plain = tar_bytes({f"{i}.json": os.urandom(900) for i in range(9)})
    compress = zstandard.ZstdCompressor().compress
    frames = b"".join(compress(plain[i : i + 1000]) for i in range(0, len(plain), 1000))
    members, archive = read(written(tmp_path, frames, "a.tar.zst"))
    assert len(members) == 9
    assert not archive.truncated


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_come_out_as_tarfile_reads_them(tmp_path, form):
    names = ["d" * 90 + "/" + "e" * 60 + "/0.json", "plain.json", "f" * 80 + "/g.json"]
    if form != tarfile.USTAR_FORMAT:
        names += ["h" * 300 + ".json", "ü/日本.json"]
    path = written(tmp_path, tar_bytes(dict.fromkeys(names, b"{}"), format=form))
    with tarfile.open(path) as tar:
        assert tar.getnames() == names
    assert [name for name, _ in read(path)[0]] == names


def test_only_regular_json_files_come_out_whatever_their_path(tmp_path):
    def fill(tar):
        add(tar, "../../etc/evil.json", b"1")
        add(tar, "/abs/olute.json", b"2")
        add(tar, "link.json", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.json", type=tarfile.LNKTYPE, linkname="../../etc/evil.json")
        add(tar, "device.json", type=tarfile.CHRTYPE)
        add(tar, "pipe.json", type=tarfile.FIFOTYPE)
        add(tar, "folder.json", type=tarfile.DIRTYPE)
        add(tar, "COPYING", b"CC0")
        add(tar, "last.json", b"3")

    before = set(tmp_path.parent.iterdir())
    members, archive = read(made(tmp_path, fill))
    assert [content for _, content in members] == [b"1", b"2", b"3"]
    assert archive.skipped == 6
    assert set(tmp_path.parent.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_a_member_over_the_cap_is_named_but_never_held(tmp_path):
    path = written(tmp_path, tar_bytes({"big.json": b"x" * 1001, "ok.json": b"{}"}))
    assert read(path)[0] == [("big.json", None), ("ok.json", b"{}")]


def test_too_many_members_are_refused(tmp_path):
    path = written(tmp_path, tar_bytes({f"{i}.txt": b"" for i in range(51)}))
    with pytest.raises(InputRejected, match="more than 50 members"):
        read(path)


@pytest.mark.parametrize("suffix", [".zst", ".bz2", ".xz", ".gz"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, suffix):
    bomb = COMPRESS[suffix](tar_bytes({"zeros.bin": bytes(8 << 20)}))
    assert len(bomb) < 20_000
    archive = Archive(written(tmp_path, bomb), SMALL)
    with pytest.raises(InputRejected, match="more than 20 times its size"):
        list(archive)
    assert archive._bytes_out < 3 << 20


def test_a_header_that_announces_a_huge_name_is_refused(tmp_path):
    path = made(tmp_path, lambda tar: add(tar, "x", b"y" * 5000, type=b"L"))
    with pytest.raises(InputRejected, match="member name of 5,000 bytes"):
        read(path)


@pytest.mark.parametrize("pax", [b"99 size=-7\n", b"11 size=-7\n", b"0 a=b\n", b"xx\n", b"7 a=b"])
def test_a_pax_header_that_lies_is_refused(tmp_path, pax):
    def fill(tar):
        add(tar, "x", pax, type=b"x")
        add(tar, "a.json", b"{}")

    with pytest.raises(InputRejected, match="damaged"):
        read(made(tmp_path, fill))


def test_a_negative_size_in_a_header_is_refused(tmp_path):
    raw = bytearray(tar_bytes({"a.json": b"{}"}))
    raw[124:136] = b"-0000000007\0"
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    with pytest.raises(InputRejected, match="negative size"):
        read(written(tmp_path, bytes(raw)))


def test_a_member_that_claims_eight_gigabytes_ends_as_truncated(tmp_path):
    raw = bytearray(tar_bytes({"a.json": b"{}", "b.json": b"{}"}))
    second = raw[1024:1536]
    second[124:136] = b"77777777777\0"
    second[148:156] = b" " * 8
    second[148:156] = b"%06o\0 " % sum(second)
    raw[1024:1536] = second
    members, archive = read(written(tmp_path, bytes(raw)))
    assert members[0] == ("a.json", b"{}")
    assert archive.truncated


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_cut_archive_keeps_what_came_before_and_says_so(tmp_path, suffix):
    # bzip2 gives nothing until a block of up to 900 kB is complete
    members = {f"{i}.json": os.urandom(30_000) for i in range(100)}
    whole = COMPRESS[suffix](tar_bytes(members))
    found, archive = read(written(tmp_path, whole[: len(whole) * 2 // 3]), Limits())
    assert archive.truncated
    assert found == list(members.items())[: len(found)]
    assert 55 <= len(found) <= 67


def test_a_tar_without_its_end_marker_counts_as_cut(tmp_path):
    plain = tar_bytes({"a.json": b"{}"})
    members, archive = read(written(tmp_path, plain[:1024]))
    assert (len(members), archive.truncated) == (1, True)


@pytest.mark.parametrize(
    "content", [b"", b"not an archive at all" * 99, b"\x28\xb5\x2f\xfd", b"PK"]
)
def test_what_is_no_archive_is_refused_by_name(tmp_path, content):
    path = written(tmp_path, content)
    with pytest.raises(InputRejected, match=r"a\.tar"):
        read(path)


@pytest.mark.parametrize("suffix", [".zst", ".bz2", ".xz", ".gz"])
def test_a_flipped_bit_is_refused_because_the_numbers_cannot_be_trusted(tmp_path, suffix):
    whole = bytearray(
        COMPRESS[suffix](tar_bytes({f"{i}.json": os.urandom(900) for i in range(40)}))
    )
    whole[len(whole) // 2] ^= 4
    with pytest.raises(InputRejected, match="damaged"):
        read(written(tmp_path, bytes(whole)))


def test_an_empty_archive_gives_nothing(tmp_path):
    members, archive = read(written(tmp_path, tar_bytes({})))
    assert (members, archive.truncated) == ([], False)


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingFile, match="nowhere"):
        read(tmp_path / "nowhere.tar")


def test_a_folder_in_place_of_an_archive_is_refused(tmp_path):
    with pytest.raises(InputRejected, match="can't be opened"):
        read(tmp_path)
