"""Machines of Hetzner Cloud, through its official client.

Everything that is made carries the labels `nearfield-run` and `managed-by`; a firewall lets SSH in
and nothing else, the machines talk to each other on a private network. A server that is powered
off is paid for until it is deleted.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import msgspec
from hcloud import APIException, Client
from hcloud.actions import ActionException
from hcloud.firewalls import FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.networks import NetworkSubnet
from hcloud.server_types import ServerType
from hcloud.servers import BoundServer
from requests import RequestException

from nearfield.clusters.prices import MachinePrice, Prices
from nearfield.errors import Infrastructure, UsageError
from vm_scripts.providers.base import Machine, Wanted, now, owner_of
from vm_scripts.settings import MachineSettings

TOKEN_VARIABLE = "HCLOUD_TOKEN"  # noqa: S105  (the variable's name)
MANAGED = {"managed-by": "nearfield"}
RUN_LABEL, OWNER_LABEL = "nearfield-run", "nearfield-owner"
NETWORK = "10.77.0.0/16"
POLLS = 300
IN_USE_S = 60.0
"""A firewall is in use for a while after its servers are gone."""
TIMEOUT_S = 30


class Hetzner:
    """Servers of one project, found by label."""

    makes_machines = True

    def __init__(self, settings: MachineSettings, *, poll_s: float = 1.0) -> None:
        token = os.environ.get(TOKEN_VARIABLE)
        if not token:
            raise UsageError(f"expected an API token of Hetzner Cloud in {TOKEN_VARIABLE}")
        self.settings, self.poll_s = settings.hetzner, poll_s
        self.client = Client(
            token=token,
            api_endpoint=self.settings.endpoint,
            application_name="nearfield",
            poll_interval=poll_s,
            poll_max_retries=POLLS,
            timeout=TIMEOUT_S,
        )

    def machines(self, run: str | None = None) -> list[Machine]:
        """Servers with our label, in any state."""
        with _api("list the servers"):
            found = self.client.servers.get_all(label_selector=_selector(run))
        return [_machine(server, self.settings.ssh_port) for server in found]

    def create(self, wanted: Wanted) -> Machine:
        """A server on the run's network, behind the run's firewall."""
        labels = MANAGED | {RUN_LABEL: wanted.run}
        with _api(f"create {wanted.name}"):
            network, firewall, key = self._surroundings(wanted, labels)
            made = self.client.servers.create(
                name=wanted.name,
                server_type=ServerType(name=self.settings.type),
                image=Image(name=self.settings.image),
                location=Location(name=self.settings.location),
                ssh_keys=[key],
                networks=[network],
                firewalls=[firewall],
                user_data=wanted.user_data,
                labels=labels | {OWNER_LABEL: owner_of(wanted.public_key)},
            )
            try:
                for action in (made.action, *made.next_actions):
                    action.wait_until_finished()
                server = self.client.servers.get_by_id(int(made.server.id or 0))
            except BaseException:
                # it exists and is paid for, whatever failed
                made.server.delete()
                raise
        return _machine(server, self.settings.ssh_port)

    def delete(self, machine: Machine) -> None:
        """Delete the server and wait until it is gone."""
        with _api(f"delete {machine.name}"):
            server = self._or_none(lambda: self.client.servers.get_by_id(int(machine.id)))
            if server is not None:
                server.delete().wait_until_finished()

    def delete_rest(self, run: str) -> list[str]:
        """Firewall, network and key of the run."""
        gone = []
        with _api(f"clean up after {run}"):
            for kind in (self.client.firewalls, self.client.networks, self.client.ssh_keys):
                for thing in kind.get_all(label_selector=_selector(run)):
                    self._delete_unused(thing)
                    gone.append(str(thing.name))
        return gone

    def _delete_unused(self, thing: Any) -> None:
        deadline = time.monotonic() + IN_USE_S
        while True:
            try:
                thing.delete()
                return
            except APIException as error:
                if error.code != "resource_in_use" or time.monotonic() > deadline:
                    raise
            time.sleep(self.poll_s)

    def hourly(self, kind: str) -> float:
        """Server and IPv4 address, before tax, as the API says today."""
        return self.price(kind).hourly

    def price(self, kind: str) -> MachinePrice:
        """What the API says of a server type in our location."""
        pricing = self._pricing
        with _api("ask for prices"):
            known = self.client.server_types.get_by_name(kind)
        if known is None:
            raise UsageError(f"Hetzner Cloud has no server type {kind}")
        server = _hourly(pricing["server_types"], "name", kind, self.settings.location)
        address = _hourly(pricing["primary_ips"], "type", "ipv4", self.settings.location)
        return MachinePrice(
            provider="hetzner",
            type=kind,
            hourly=round(server + address, 6),
            cores=known.cores,
            memory_gb=known.memory,
            disk_gb=known.disk,
            source=f"API, {self.settings.location}, {pricing['currency']} with an IPv4 address",
        )

    def currency(self) -> str:
        """Of the prices that the API names."""
        return str(self._pricing["currency"])

    @cached_property
    def _pricing(self) -> dict[str, Any]:
        """All prices, which come in one answer."""
        with _api("ask for prices"):
            answer = self.client.request(method="GET", url="/pricing")
        return dict(answer["pricing"])

    def _surroundings(self, wanted: Wanted, labels: dict[str, str]) -> tuple[Any, Any, Any]:
        """Network, firewall and key of the run: those that are there, else new ones."""
        name = f"nearfield-{wanted.run}"
        client = self.client
        network = client.networks.get_by_name(name) or client.networks.create(
            name=name,
            ip_range=NETWORK,
            subnets=[
                NetworkSubnet(ip_range=NETWORK, type="cloud", network_zone=self.settings.zone)
            ],
            labels=labels,
        )
        anywhere = ["0.0.0.0/0", "::/0"]
        rules = [
            FirewallRule(
                direction="in",
                protocol="tcp",
                port=str(self.settings.ssh_port),
                source_ips=anywhere,
            ),
            FirewallRule(direction="in", protocol="icmp", source_ips=anywhere),
        ]
        firewall = (
            client.firewalls.get_by_name(name)
            or client.firewalls.create(
                name=name,
                rules=rules,
                labels=labels,  # type: ignore[arg-type]  # the client's annotation is wrong
            ).firewall
        )
        key = client.ssh_keys.get_by_name(name) or client.ssh_keys.create(
            name=name, public_key=wanted.public_key, labels=labels
        )
        return network, firewall, key

    def _or_none(self, ask: Callable[[], BoundServer]) -> BoundServer | None:
        try:
            return ask()
        except APIException as error:
            if error.code == "not_found":
                return None
            raise


def refreshed(prices: Prices, provider: Hetzner, kind: str) -> Prices:
    """The prices with today's of all server types that they name, and of `kind`.

    A type that isn't sold any more stays as it is, and is named on standard error. Raises
    `UsageError` where the API's currency is another than that of the other entries.
    """
    if (currency := provider.currency()) != prices.currency:
        raise UsageError(
            f"the API's prices are in {currency}, the price file's in {prices.currency}: "
            "use another price file"
        )
    today, machines = now().date().isoformat(), list(prices.machines)
    named = {one.type: place for place, one in enumerate(machines) if one.provider == "hetzner"}
    for name in {kind, *named}:
        try:
            found = msgspec.structs.replace(provider.price(name), as_of=today)
        except UsageError as error:
            print(f"{error}: its entry stays", file=sys.stderr)
            continue
        if name in named:
            machines[named[name]] = found
        else:
            machines.append(found)
    return Prices(prices.currency, machines)


def _machine(server: BoundServer, port: int) -> Machine:
    public = server.public_net.ipv4.ip if server.public_net and server.public_net.ipv4 else ""
    private = server.private_net[0].ip if server.private_net else public
    labels = server.labels or {}
    return Machine(
        name=server.name or "",
        run=labels.get(RUN_LABEL, ""),
        id=str(server.id),
        kind=(server.server_type.name if server.server_type else None) or "",
        state=server.status or "",
        created=server.created,  # type: ignore[arg-type]  # the client turns it into a datetime
        address=private or "",
        ssh=public or "",
        port=port,
        owner=labels.get(OWNER_LABEL, ""),
    )


def _selector(run: str | None) -> str:
    selector = ",".join(f"{key}={value}" for key, value in MANAGED.items())
    return selector if run is None else f"{selector},{RUN_LABEL}={run}"


def _hourly(entries: list[dict[str, Any]], key: str, value: str, location: str) -> float:
    for entry in entries:
        if entry[key] == value:
            for price in entry["prices"]:
                if price["location"] == location:
                    return float(price["price_hourly"]["net"])
    raise Infrastructure(f"the API names no price of {value} in {location}")


@contextmanager
def _api(what: str) -> Iterator[None]:
    """Errors of the API and of the network as ours. The client has retried what can be retried."""
    try:
        yield
    except APIException as error:
        if error.code in ("unauthorized", "forbidden", "invalid_input"):
            raise UsageError(f"could not {what}: {error.message} ({error.code})") from error
        raise Infrastructure(
            f"Hetzner Cloud could not {what}: {error.message} ({error.code})"
        ) from error
    except ActionException as error:
        raise Infrastructure(f"Hetzner Cloud could not {what}: {error}") from error
    except RequestException as error:
        raise Infrastructure(f"Hetzner Cloud can't be reached to {what}: {error}") from error
