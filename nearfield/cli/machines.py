"""`nearfield cluster up`, `down`, `status` and `certificates`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfield.cli.output import AsJson, DryRun, examples, print_json, print_pairs, print_table
from nearfield.errors import Infrastructure

if TYPE_CHECKING:
    from nearfield.clusters.hosts import ClusterState

InventoryArgument = Annotated[
    Path, typer.Argument(metavar="HOSTS.TOML", help="Inventory of the hosts.")
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Where credentials and cluster.toml are kept (default: HOSTS.cluster)."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    cluster = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    cluster.command(
        epilog=examples(
            "nearfield cluster up hosts.toml",
            "nearfield build vectors --out run --scheduler hosts.cluster/cluster.toml",
        )
    )(up)
    cluster.command(epilog=examples("nearfield cluster down hosts.toml"))(down)
    cluster.command(epilog=examples("nearfield cluster status hosts.toml --json"))(status)
    cluster.command(epilog=examples("nearfield cluster certificates songs --out tls"))(certificates)
    app.add_typer(
        cluster,
        name="cluster",
        help="Dask clusters on hosts over SSH, with TLS: up, down, status, certificates.",
    )


def up(
    inventory: InventoryArgument,
    *,
    state: StateOption = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Start a scheduler and workers on the hosts; again: start what doesn't run any more."""
    from nearfield import api

    if dry_run:
        _print_plan(inventory, as_json=as_json)
        return
    report = api.cluster_up(inventory, state=state)
    if as_json:
        print_json(report)
        return
    _print_services(report)
    print_pairs(
        [
            ("scheduler", report.scheduler),
            ("use it with", f"--scheduler {report.connection}"),
            ("dashboard", report.tunnel),
        ]
    )


def down(
    inventory: InventoryArgument, *, state: StateOption = None, as_json: AsJson = False
) -> None:
    """Stop workers and scheduler, and remove the cluster's credentials there and here."""
    from nearfield import api

    report = api.cluster_down(inventory, state=state)
    print_json(report) if as_json else _print_services(report)
    _raise_problems(report)


def status(
    inventory: InventoryArgument, *, state: StateOption = None, as_json: AsJson = False
) -> None:
    """Say what runs on which host and which workers the scheduler sees; exit 5 if some are gone."""
    from nearfield import api

    report = api.cluster_status(inventory, state=state)
    print_json(report) if as_json else _print_services(report)
    _raise_problems(report)


def certificates(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the cluster.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of ca.pem, tls.pem, tls.key.")],
) -> None:
    """Make certificates of a cluster that something else starts; again: new ones, same authority.

    All services share one. It ends after 30 days, the authority (ca.key, for nobody else) after
    ten years: make new ones in time, and start the services with them.
    """
    from nearfield import api

    ends = api.cluster_certificates(name, out)
    print_pairs([("certificates", str(out)), ("end", f"{ends:%Y-%m-%d}")])


def _print_plan(path: Path, *, as_json: bool) -> None:
    from nearfield.clusters.inventory import read_inventory

    inventory = read_inventory(path)
    if as_json:
        print_json({"scheduler": inventory.address, "hosts": [h.name for h in inventory.hosts]})
        return
    print_table(
        ("host", "address", "role", "cores"),
        ((host.name, host.address, host.role, host.cores or "all") for host in inventory.hosts),
    )
    print_pairs([("scheduler", inventory.address), ("encrypted", "yes" if inventory.tls else "NO")])


def _print_services(report: "ClusterState") -> None:
    print_table(
        ("host", "service", "state", "workers"),
        (
            (one.host, one.service, one.state, "" if one.workers is None else one.workers)
            for one in report.services
        ),
    )


def _raise_problems(report: "ClusterState") -> None:
    if report.problems:
        raise Infrastructure(
            f"cluster {report.name}: {'; '.join(report.problems)}. `nearfield cluster up` starts "
            "what is missing"
        )
