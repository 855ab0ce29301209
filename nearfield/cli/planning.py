"""`nearfield plan`: how many machines, for how many hours, at what cost."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfield.cli.output import AsJson, examples, print_json, print_pairs, print_table, size
from nearfield.cli.quantities import seconds_of
from nearfield.errors import UsageError

if TYPE_CHECKING:
    from index_build.machines.choice import Option
    from nearfield.api.plans import MachinePlan

ROWS_SHOWN = 12


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "nearfield plan --rows 4000000 --dims 93 -k 100 --calibrate",
            "nearfield plan --rows 4000000 --dims 93 -k 100 --deadline 1h",
            "nearfield plan vectors -k 100 --budget 5EUR --prices prices.toml",
        )
    )(plan)


def plan(  # noqa: PLR0913  (a command has as many parameters as it has options)
    vectors: Annotated[
        Path | None, typer.Argument(metavar="VECTORS", help="Vector set; else --rows, --dims.")
    ] = None,
    *,
    rows: Annotated[int | None, typer.Option(help="Recordings to plan for.")] = None,
    dims: Annotated[int | None, typer.Option(help="Numbers per vector.")] = None,
    k: Annotated[int, typer.Option("-k", help="Neighbours per recording.")] = 100,
    recall: Annotated[float, typer.Option(help="Share of true neighbours to find.")] = 0.95,
    machine: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Only this type of the price file.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="TIME", help="The cheapest that is done by then: 6h.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="MONEY", help="The fastest for that much: 20EUR.")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Price file (default: deploy/prices.toml).")
    ] = None,
    core_speed: Annotated[
        float, typer.Option(help="Speed of a rented core against one of this machine.")
    ] = 1.0,
    link: Annotated[float, typer.Option(help="Network between the machines, Gbit/s.")] = 1.0,
    uplink: Annotated[
        float, typer.Option(help="Network between here and the machines, Mbit/s.")
    ] = 100.0,
    calibration: Annotated[
        Path, typer.Option(metavar="FILE", help="Where calibrations of this machine are kept.")
    ] = Path("nearfield-calibration.json"),
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine first; takes minutes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say how many machines to rent, for how many hours, at what cost."""
    from index_build.machines.choice import Allowed
    from nearfield import api
    from nearfield.api.plans import Assumed, wanted_of
    from nearfield.clusters.prices import PRICE_FILE, read_prices

    for name, given in (("core-speed", core_speed), ("link", link), ("uplink", uplink)):
        if given <= 0:
            raise UsageError(f"expected --{name} above 0, got {given}")
    wanted = wanted_of(vectors, rows, dims, k, recall)
    assumed = Assumed(prices or PRICE_FILE, machine, core_speed, link * 1e9, uplink * 1e6)
    money = None if budget is None else _money_of(budget, read_prices(assumed.prices).currency)
    allowed = Allowed(seconds_of(deadline, "--deadline"), money)
    if calibrate:
        api.calibrate(wanted, out=calibration)
    made = api.plan(wanted, calibration=calibration, assumed=assumed, allowed=allowed)
    if as_json:
        print_json(made)
        return
    _print(made, uplink)


def _print(made: "MachinePlan", uplink: float) -> None:
    wanted, currency = made.wanted, made.currency
    shown = list(made.options[:ROWS_SHOWN])
    if made.take is not None and made.take not in shown:
        shown.append(made.take)
    print_table(
        ("machines", "hours", "95% from", "to", "memory", "disk", "network", currency, ""),
        [_line(one, "take this" if one is made.take else one.lacks) for one in shown],
        title=f"{wanted.n:,} x {wanted.d}, k = {wanted.k}, recall {wanted.recall}: "
        "sent, built, verified, fetched, loaded",
    )
    left_out = len(made.options) - len(shown)
    take = made.take
    print_pairs(
        [
            ("here", _here(made.here)),
            (
                "take",
                f"{take.count} x {take.machine.name}: {take.hours:.1f} hours, "
                f"{take.cost:.2f} {currency}"
                if take
                else "nothing fits: raise --deadline or --budget, or add larger types to the "
                "price file",
            ),
            ("matters most", made.most_important),
            ("measured", made.calibrated),
            (
                "assumed",
                f"5 minutes to start and end machines, {uplink:g} Mbit/s between them and here, a "
                "started hour is paid as a whole, none for the load, results go through a folder "
                "on one of them; prices as the price file says. Not contained: reading the "
                "sources, and installing",
            ),
            *([("not shown", f"{left_out} dearer options: --json")] if left_out else []),
        ]
    )


def _line(one: "Option", remark: str) -> tuple[object, ...]:
    return (
        f"{one.count} x {one.machine.name}",
        f"{one.hours:.2f}",
        *(f"{(seconds + one.beside_s) / 3600:.2f}" for seconds in (one.time.low, one.time.high)),
        size(one.memory_bytes),
        size(one.disk_bytes),
        size(one.network_bytes),
        f"{one.cost:.2f}",
        remark,
    )


def _here(one: "Option") -> str:
    time = one.time
    remark = f"; it has too little: {one.lacks}" if one.lacks else ""
    return (
        f"{time.seconds / 60:.1f} minutes on this machine ({time.low / 60:.1f} to "
        f"{time.high / 60:.1f}){remark}"
    )


SIGNS = {"€": "EUR", "$": "USD", "£": "GBP"}


def _money_of(text: str, currency: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*|[€$£])\s*", text)
    if match is None or SIGNS.get(match[2], match[2].upper()) not in ("", currency):
        raise UsageError(
            f"expected an amount in the price file's currency, such as 20{currency}, for --budget; "
            f"got {text!r}"
        )
    return float(match[1])
