"""Hetzner Cloud through its official client, against a local server that speaks its API."""

import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from nearfield.clusters.prices import MachinePrice, Prices
from nearfield.errors import Infrastructure, RunLocked, UsageError
from nearfield.interrupts import STOPS, Interrupted, raise_on_signals
from nearfield.lock import locked
from tests.vm_scripts.hetzner_server import FakeHetzner
from vm_scripts import costs, fleet
from vm_scripts.costs import Rented, cost_of
from vm_scripts.providers import hetzner
from vm_scripts.providers.base import Wanted, owner_of
from vm_scripts.providers.hetzner import Hetzner, refreshed
from vm_scripts.rebuild import machines_for
from vm_scripts.settings import read_settings


@pytest.fixture
def cloud():
    with FakeHetzner(["127.0.0.1"]) as running:
        yield running


@pytest.fixture
def settings(cloud, tmp_path, monkeypatch):
    monkeypatch.setenv("HCLOUD_TOKEN", "right")
    path = tmp_path / "machines.toml"
    path.write_text(
        'run = "weekly"\nprovider = "hetzner"\nworkers = 1\n'
        f'[hetzner]\nendpoint = "{cloud.endpoint}"\n'
    )
    return read_settings(path)


@pytest.fixture
def provider(settings):
    return Hetzner(settings, poll_s=0.01)


def wanted(number=0, run="weekly"):
    return Wanted(run, number, "#cloud-config", "ssh-ed25519 AAAA test")


def test_a_machine_is_made_labelled_and_found(cloud, provider):
    machine = provider.create(wanted())
    assert machine.name == "weekly-head"
    assert (machine.run, machine.kind, machine.state) == ("weekly", "cx43", "running")
    assert provider.machines("weekly") == [machine]
    assert provider.machines("daily") == []
    sent = next(body for method, path, body in cloud.requests
                if (method, path) == ("POST", "/v1/servers"))  # fmt: skip
    assert sent["labels"] == {
        "managed-by": "nearfield", "nearfield-run": "weekly", "nearfield-owner": machine.owner,
    }  # fmt: skip
    assert machine.owner == owner_of(wanted().public_key)
    assert sent["user_data"] == "#cloud-config"
    assert len(sent["ssh_keys"]) == len(sent["networks"]) == len(sent["firewalls"]) == 1


def test_a_second_machine_uses_the_runs_network_firewall_and_key(cloud, provider):
    provider.create(wanted())
    provider.create(wanted(1))
    assert cloud.names() == ["weekly-1", "weekly-head"]
    for kind in ("networks", "firewalls", "ssh_keys"):
        assert cloud.names(kind) == ["nearfield-weekly"]
    rules = next(body for method, path, body in cloud.requests
                 if (method, path) == ("POST", "/v1/firewalls"))["rules"]  # fmt: skip
    assert {(rule["protocol"], rule.get("port")) for rule in rules} == {
        ("tcp", "22"),
        ("icmp", None),
    }


def test_a_create_that_fails_halfway_leaves_no_server(cloud, provider):
    cloud.broken_actions = 1
    with pytest.raises(Infrastructure, match="no room in fsn1"):
        provider.create(wanted())
    assert cloud.names() == []


@pytest.mark.parametrize(
    ("status", "code"), [(429, "rate_limit_exceeded"), (409, "conflict"), (502, "bad_gateway")]
)
def test_passing_troubles_are_tried_again(cloud, provider, monkeypatch, status, code):
    monkeypatch.setattr("hcloud._client.time.sleep", lambda _seconds: None)
    cloud.fail = [("POST", "/v1/servers", status, code)] * 2
    assert provider.create(wanted()).name == "weekly-head"
    assert cloud.names() == ["weekly-head"]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "server_error", Infrastructure),
        (412, "resource_unavailable", Infrastructure),
        (409, "uniqueness_error", Infrastructure),
        (403, "forbidden", UsageError),
    ],
)
def test_lasting_troubles_end_in_one_sentence(cloud, provider, status, code, kind):
    cloud.fail = [("POST", "/v1/servers", status, code)]
    with pytest.raises(kind, match=f"create weekly-head.*{code}"):
        provider.create(wanted())


def test_a_wrong_token_is_a_wrong_setting(settings, monkeypatch):
    monkeypatch.setenv("HCLOUD_TOKEN", "wrong")
    with pytest.raises(UsageError, match="unauthorized"):
        Hetzner(settings).machines()
    monkeypatch.delenv("HCLOUD_TOKEN")
    with pytest.raises(UsageError, match="HCLOUD_TOKEN"):
        Hetzner(settings)


def test_an_api_out_of_reach_is_said(settings, cloud):
    provider = Hetzner(settings)
    cloud.server.server_close()
    with pytest.raises(Infrastructure, match="can't be reached to list the servers"):
        provider.machines()


def test_the_price_is_the_apis_with_the_address(provider):
    price = provider.price("cx43")
    assert (price.hourly, price.cores, price.memory_gb) == (0.021, 8, 16)
    with pytest.raises(UsageError, match="cx99"):
        provider.price("cx99")


def test_all_prices_of_the_provider_are_refreshed_in_their_currency(provider, capsys):
    def priced(provider, kind):
        return MachinePrice(provider=provider, type=kind, hourly=9.0, cores=2, memory_gb=4,
                            disk_gb=9, as_of="2020-01-01", source="old")  # fmt: skip

    known = [priced("hetzner", "cx43"), priced("own", "box"), priced("hetzner", "gone")]
    fresh = refreshed(Prices("EUR", known), provider, "cx43").machines
    assert [(one.type, one.hourly) for one in fresh] == [("cx43", 0.021), ("box", 9), ("gone", 9)]
    assert fresh[0].as_of == datetime.now(UTC).date().isoformat()
    assert "no server type gone: its entry stays" in capsys.readouterr().err
    assert len(refreshed(Prices("EUR", known[1:2]), provider, "cx43").machines) == 2
    with pytest.raises(UsageError, match="in EUR, the price file's in USD"):
        refreshed(Prices("USD", known), provider, "cx43")


def test_down_deletes_what_the_run_has_and_knows_nothing_of(cloud, settings):
    for name in ("weekly-head", "weekly-7"):
        cloud.put("servers", name, {"managed-by": "nearfield", "nearfield-run": "weekly"})
    cloud.put("servers", "daily-head", {"managed-by": "nearfield", "nearfield-run": "daily"})
    cloud.put("servers", "shop", {})
    cloud.put("networks", "nearfield-weekly",
              {"managed-by": "nearfield", "nearfield-run": "weekly"})  # fmt: skip
    found = fleet.down(settings)
    assert cloud.names() == ["daily-head", "shop"]
    assert cloud.names("networks") == []
    assert [machine.name for machine in found.others] == ["daily-head"]
    fleet.down(settings, all_runs=True)
    assert cloud.names() == ["shop"]


def test_down_names_what_it_could_not_delete(cloud, settings):
    labels = {"managed-by": "nearfield", "nearfield-run": "weekly"}
    stays = cloud.put("servers", "weekly-head", labels)
    cloud.put("servers", "weekly-1", labels)
    cloud.fail = [("DELETE", f"/v1/servers/{stays['id']}", 500, "server_error")]
    with pytest.raises(Infrastructure, match=r"may still exist and cost money: weekly-head"):
        fleet.down(settings)
    assert cloud.names() == ["weekly-head"]
    fleet.down(settings)
    assert cloud.names() == []


@pytest.mark.parametrize("lasting", [False, True])
def test_a_firewall_that_is_still_in_use_is_waited_for_and_no_reason_to_fail(
    cloud, settings, lasting, monkeypatch, capsys
):
    wall = cloud.put("firewalls", "nearfield-weekly",
                     {"managed-by": "nearfield", "nearfield-run": "weekly"})  # fmt: skip
    if lasting:
        monkeypatch.setattr(hetzner, "IN_USE_S", 0)
    cloud.fail = [("DELETE", f"/v1/firewalls/{wall['id']}", 409, "resource_in_use")]
    fleet.down(settings)
    assert cloud.names("firewalls") == (["nearfield-weekly"] if lasting else [])
    assert ("costs nothing" in capsys.readouterr().err) is lasting


def test_another_computers_machines_are_left_alone_but_by_down(cloud, settings):
    labels = {"managed-by": "nearfield", "nearfield-run": "weekly"}
    rest = ("networks", "firewalls", "ssh_keys")
    for kind in rest:
        cloud.put(kind, "nearfield-weekly", labels)
    cloud.put("servers", "weekly-head", labels | {"nearfield-owner": "0123456789abcdef"})
    with pytest.raises(RunLocked, match="weekly-head of the run weekly were made by another"):
        fleet.up(settings)
    with pytest.raises(RunLocked), machines_for(settings):
        pass
    assert cloud.names() == ["weekly-head"]
    assert [cloud.names(kind) for kind in rest] == [["nearfield-weekly"]] * 3
    fleet.down(settings)
    assert [cloud.names(kind) for kind in ("servers", *rest)] == [[]] * 4


@contextmanager
def another_command_at_work(settings):
    """It has the run's lock for the block, or until the event is set."""
    over, busy = threading.Event(), threading.Event()

    def other():
        with locked(settings.state):
            busy.set()
            over.wait(10)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(other)
        busy.wait(10)
        try:
            yield over
        finally:
            over.set()


def test_machines_are_deleted_after_another_command_is_through_with_them(
    cloud, settings, monkeypatch
):
    cloud.put("servers", "weekly-head", {"managed-by": "nearfield", "nearfield-run": "weekly"})
    monkeypatch.setattr(fleet, "up", lambda _settings: None)
    monkeypatch.setattr("vm_scripts.rebuild.DELETE_AGAIN_S", 0.05)
    with another_command_at_work(settings) as over:
        threading.Timer(0.3, over.set).start()
        with machines_for(settings):
            pass
    assert cloud.names() == []


def test_machines_with_which_another_command_is_busy_are_left_to_it(cloud, settings):
    cloud.put("servers", "weekly-head", {"managed-by": "nearfield", "nearfield-run": "weekly"})
    with another_command_at_work(settings), pytest.raises(RunLocked), machines_for(settings):
        pass
    assert cloud.names() == ["weekly-head"]


def test_deleting_is_tried_until_its_time_is_over(cloud, settings, monkeypatch, capsys):
    monkeypatch.setattr("vm_scripts.rebuild.DELETE_AGAIN_S", 0.01)
    cloud.put("servers", "weekly-head", {
        "managed-by": "nearfield", "nearfield-run": "weekly",
    })  # fmt: skip
    failing = ("DELETE", f"/v1/servers/{cloud.number}", 500, "server_error")
    monkeypatch.setattr(fleet, "up", lambda _settings: None)
    cloud.fail = [failing] * 3
    monkeypatch.setattr("vm_scripts.rebuild.DELETE_S", 0)
    with pytest.raises(Infrastructure, match="cost money"), machines_for(settings):
        pass
    assert (cloud.names(), len(cloud.fail)) == (["weekly-head"], 2)
    monkeypatch.setattr("vm_scripts.rebuild.DELETE_S", 60)
    with machines_for(settings):
        pass
    assert (cloud.names(), cloud.fail) == ([], [])
    assert capsys.readouterr().err.count("trying again") == 2


def test_a_server_whose_creation_got_no_answer_is_deleted_too(cloud, settings, monkeypatch):
    created = Hetzner.create

    def create(self, wanted):
        created(self, wanted)
        raise Infrastructure("uniqueness_error")

    monkeypatch.setattr(Hetzner, "create", create)
    with pytest.raises(Infrastructure, match="uniqueness_error"):
        fleet.up(settings)
    assert cloud.names() == []


def test_what_was_made_is_deleted_where_the_list_is_refused(cloud, settings, monkeypatch):
    def create_failing(_self, wanted):
        cloud.fail = [("GET", "/v1/servers", 403, "forbidden")]
        raise Infrastructure(f"no {wanted.name}")

    created = Hetzner.create

    def create(self, wanted):
        made = created(self, wanted)
        monkeypatch.setattr(Hetzner, "create", create_failing)
        return made

    monkeypatch.setattr(Hetzner, "create", create)
    with pytest.raises(Infrastructure, match="no weekly-1"):
        fleet.up(settings)
    cloud.fail = []
    assert cloud.names() == []


def test_the_key_of_a_deleted_machine_is_forgotten(cloud, settings):
    cloud.put("servers", "weekly-head", {"managed-by": "nearfield", "nearfield-run": "weekly"})
    settings.state.mkdir()
    known = settings.state / "known_hosts"
    known.write_text("127.0.0.1 ssh-ed25519 OLD\n127.0.0.9 ssh-ed25519 OTHER\n")
    fleet.down(settings)
    assert known.read_text() == "127.0.0.9 ssh-ed25519 OTHER\n"


def test_the_key_that_an_address_had_before_is_forgotten_when_a_machine_gets_it(settings, provider):
    settings.state.mkdir()
    known = settings.state / "known_hosts"
    known.write_text("127.0.0.1 ssh-ed25519 OLD\n127.0.0.9 ssh-ed25519 OTHER\n")
    made = []
    fleet._existing_or_made(settings, provider, [], made)
    assert made
    assert known.read_text() == "127.0.0.9 ssh-ed25519 OTHER\n"


def test_down_twice_is_down(cloud, settings):
    fleet.down(settings)
    assert fleet.down(settings).machines == ()


def test_the_plan_makes_nothing(cloud, settings):
    plan = fleet.plan(settings)
    assert [(one["machine"], one["exists"], one["hourly"]) for one in plan] == [
        ("weekly-head", False, 0.021),
        ("weekly-1", False, 0.021),
    ]
    assert not [request for request in cloud.requests if request[0] != "GET"]


def test_an_up_that_fails_deletes_what_it_made(cloud, settings):
    cloud.fail = [("POST", "/v1/servers", 500, "server_error")]
    cloud.put("servers", "weekly-head", {"managed-by": "nearfield", "nearfield-run": "weekly"})
    with pytest.raises(Infrastructure, match="weekly-1"):
        fleet.up(settings)
    assert cloud.names() == ["weekly-head"]  # that one was there before


@pytest.fixture
def never_ready(cloud, monkeypatch):
    """Machines that are made at once, and with which something is wrong then."""
    monkeypatch.setattr("hcloud._client.time.sleep", lambda _seconds: None)

    def not_ready(*_words):
        raise Infrastructure("it isn't ready")

    monkeypatch.setattr(fleet, "_ready", not_ready)


@pytest.mark.usefixtures("never_ready")
def test_an_up_that_fails_tries_every_deletion_and_names_what_may_be_left(
    cloud, settings, capsys, monkeypatch
):
    deleted = Hetzner.delete

    def delete(self, machine):
        if machine.name == "weekly-head":
            raise Infrastructure("server error")
        deleted(self, machine)

    monkeypatch.setattr(Hetzner, "delete", delete)
    with pytest.raises(Infrastructure, match="it isn't ready"):
        fleet.up(settings)
    assert cloud.names() == ["weekly-head"]
    assert "may still exist and cost money: weekly-head (server error)" in capsys.readouterr().err


@pytest.fixture
def stopped_while_deleting(monkeypatch):
    """SIGTERM comes before each deletion, and our handlers are in place."""
    before = {name: signal.getsignal(name) for name in (*STOPS, signal.SIGHUP, signal.SIGALRM)}
    deleted = Hetzner.delete

    def delete(self, machine):
        signal.raise_signal(signal.SIGTERM)
        deleted(self, machine)

    monkeypatch.setattr(Hetzner, "delete", delete)
    raise_on_signals(signal.SIGHUP)
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


@pytest.mark.usefixtures("never_ready", "stopped_while_deleting")
def test_a_failed_up_that_is_stopped_deletes_what_it_made_before_it_ends(cloud, settings):
    with pytest.raises(Interrupted):
        fleet.up(settings)
    assert cloud.names() == []


@pytest.mark.usefixtures("stopped_while_deleting")
@pytest.mark.parametrize("error", [None, Infrastructure, Interrupted])
def test_a_rebuild_that_is_stopped_while_it_deletes_machines_deletes_all(
    cloud, settings, monkeypatch, error
):
    def up(_settings):
        for name in ("weekly-head", "weekly-1"):
            cloud.put("servers", name, {"managed-by": "nearfield", "nearfield-run": "weekly"})
        if error is not None:
            raise error

    monkeypatch.setattr("hcloud._client.time.sleep", lambda _seconds: None)
    monkeypatch.setattr(fleet, "up", up)
    with pytest.raises(Interrupted), machines_for(settings):
        pass
    assert cloud.names() == []


def test_costs_count_started_hours_of_all_machines_ever():
    start = datetime(2026, 11, 21, tzinfo=UTC)
    history = [
        Rented("1", "a", "cx43", 0.02, start.isoformat(), (start + timedelta(hours=2)).isoformat()),
        Rented("2", "b", "cx43", 0.02, start.isoformat()),
    ]
    cost = cost_of(history, "EUR", start + timedelta(hours=3, seconds=1))
    assert cost.so_far == pytest.approx(2 * 0.02 + 4 * 0.02)
    assert (cost.existing, cost.per_hour) == (1, 0.02)


def test_a_machine_deleted_elsewhere_stops_costing(cloud, settings):
    cloud.put("servers", "weekly-head", {"managed-by": "nearfield", "nearfield-run": "weekly"})
    assert fleet.status(settings).cost.existing == 1
    cloud.things["servers"].clear()
    assert fleet.status(settings).cost.existing == 0
    assert json.loads((settings.state / "history.json").read_text())[0]["deleted"]
    assert costs.read_history(settings.state)[0].hourly == 0.021
