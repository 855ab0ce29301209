"""Who is let in: certificates, connection files, variables."""

import datetime
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from distributed import Client, LocalCluster
from distributed.security import Security

from nearfield import api
from nearfield.cluster import ClusterOptions, connected
from nearfield.clusters import certificates
from nearfield.clusters.certificates import authority, write_secret
from nearfield.clusters.connection import VARIABLES, connection
from nearfield.errors import Infrastructure, MissingFile, UsageError


@pytest.fixture
def folder(tmp_path):
    """A cluster's folder as `nearfield cluster up` leaves it."""
    made = authority(tmp_path, "test")
    for name in ("client", "host"):
        identity = made.issue(name, "127.0.0.1")
        write_secret(tmp_path / f"{name}.pem", identity.certificate)
        write_secret(tmp_path / f"{name}.key", identity.key)
    return tmp_path


def security(folder, name="host"):
    own, key = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
    return Security(
        require_encryption=True, tls_ca_file=str(folder / "ca.pem"),
        tls_scheduler_cert=own, tls_scheduler_key=key, tls_worker_cert=own, tls_worker_key=key,
        tls_client_cert=own, tls_client_key=key,
    )  # fmt: skip


@pytest.fixture
def address(folder):
    """A scheduler with one worker that lets in who has a certificate of the cluster."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tls://", host="127.0.0.1",
        security=security(folder), dashboard_address=None, silence_logs="ERROR",
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address


def file_for(folder, address):
    path = folder / "cluster.toml"
    lines = [f'scheduler = "{address}"', 'tls_ca = "ca.pem"']
    lines += ['tls_cert = "client.pem"', 'tls_key = "client.key"']
    path.write_text("\n".join(lines))
    return path


def test_a_connection_file_lets_us_in(folder, address):
    with connected(ClusterOptions(scheduler=str(file_for(folder, address)))) as client:
        assert client.submit(sum, [1, 2]).result() == 3


def test_variables_let_us_in(folder, address, monkeypatch):
    for name, file in zip(VARIABLES.values(), ("ca.pem", "client.pem", "client.key"), strict=True):
        monkeypatch.setenv(name, str(folder / file))
    with connected(ClusterOptions(scheduler=address)) as client:
        assert client.submit(sum, [1, 2]).result() == 3


def test_another_clusters_certificate_does_not(folder, address, tmp_path, monkeypatch):
    monkeypatch.setattr("nearfield.cluster.CONNECT_TIMEOUT_S", 2)
    other = authority(tmp_path / "other", "test")
    stranger = other.issue("client")
    write_secret(folder / "client.pem", stranger.certificate)
    write_secret(folder / "client.key", stranger.key)
    with (
        pytest.raises(Infrastructure, match="can't be reached"),
        connected(ClusterOptions(scheduler=str(file_for(folder, address)))),
    ):
        pass


def test_files_that_are_named_must_be_there(folder):
    path = file_for(folder, "tls://127.0.0.1:1")
    (folder / "client.key").unlink()
    with pytest.raises(MissingFile, match=r"client\.key"):
        connection(str(path))
    with pytest.raises(MissingFile, match="neither"):
        connection("nothing.toml")
    path.write_text('scheduler = "tls://127.0.0.1:1"\ntls_ca = "ca.pem"\n')
    with pytest.raises(UsageError, match="NEARFIELD_TLS_CERT, NEARFIELD_TLS_KEY"):
        connection(str(path))
    path.write_text('scheduler = "tls://127.0.0.1:1"\npassword = "x"\n')
    with pytest.raises(UsageError, match="password"):
        connection(str(path))


def test_an_address_alone_is_dasks_own_business():
    assert connection("tcp://10.0.0.1:8786") == ("tcp://10.0.0.1:8786", None)


def test_the_authority_is_kept_and_its_key_is_the_owners(folder):
    assert authority(folder, "test").pem == authority(folder, "test").pem
    for name in ("ca.key", "host.key", "client.key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_an_authority_outlives_what_it_signs_by_years(tmp_path):
    made = authority(tmp_path, "test")
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    host = x509.load_pem_x509_certificate(made.issue("a", "10.0.0.1").certificate.encode())
    assert 29 * day < host.not_valid_after_utc - now < 31 * day
    assert made.certificate.not_valid_after_utc - now > 3_600 * day


def test_an_authority_of_before_is_replaced_only_before_its_last_month(tmp_path, monkeypatch):
    for days, stays in ((60, True), (20, False)):
        monkeypatch.setattr(certificates, "AUTHORITY_DAYS", days)
        folder = tmp_path / str(days)
        made = authority(folder, "test")
        monkeypatch.undo()
        assert (authority(folder, "test").pem == made.pem) is stays


def test_certificates_for_services_that_others_start_are_renewed_under_one_authority(tmp_path):
    ends = api.cluster_certificates("songs", tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert first.keys() == {"ca.pem", "ca.key", "tls.pem", "tls.key"}
    ca = x509.load_pem_x509_certificate(first["ca.pem"])
    own = x509.load_pem_x509_certificate(first["tls.pem"])
    own.verify_directly_issued_by(ca)
    assert own.not_valid_after_utc == ends
    api.cluster_certificates("songs", tmp_path)
    again = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name for name in first if first[name] != again[name]} == {"tls.pem", "tls.key"}
    with (
        LocalCluster(
            n_workers=1, processes=False, dashboard_address=None, protocol="tls",
            security=security(tmp_path, "tls"),
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        assert client.submit(int, "7").result() == 7


def test_a_certificate_names_its_host_and_is_signed_by_the_authority(tmp_path):
    made = authority(tmp_path, "test")
    leaf = x509.load_pem_x509_certificate(made.issue("a", "10.0.0.9").certificate.encode())
    leaf.verify_directly_issued_by(made.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.9"]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    again = x509.load_pem_x509_certificate(made.issue("a", "10.0.0.9").certificate.encode())
    assert again.public_key() != leaf.public_key()


def test_a_client_without_certificate_is_turned_away(address):
    with pytest.raises((OSError, TimeoutError)):
        Client(address, timeout=2, security=Security.temporary())
