"""The price file: what an hour of a machine costs. One file that the user edits, for every reader.

Owns its format. Where the prices come from is said in the file itself, entry by entry.
"""

from pathlib import Path

import msgspec

from nearfield.errors import MissingFile, UsageError

PRICE_FILE = Path(__file__).parents[2] / "deploy" / "prices.toml"


class MachinePrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One machine type of one provider; `hourly` before tax, in the file's currency."""

    provider: str
    type: str
    hourly: float
    cores: int | None = None
    memory_gb: float | None = None
    disk_gb: float | None = None
    as_of: str = ""
    source: str = ""


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All known types."""

    currency: str
    machines: list[MachinePrice]

    def of(self, provider: str, kind: str) -> MachinePrice:
        """The entry for a type, or the provider's entry "any". Raises `UsageError`."""
        for wanted in (kind, "any"):
            for entry in self.machines:
                if (entry.provider, entry.type) == (provider, wanted):
                    return entry
        raise UsageError(
            f"the price file knows no {kind} of {provider}: add it, or ask the provider with "
            "`vm_scripts/cost --refresh`"
        )


def read_prices(path: Path = PRICE_FILE) -> Prices:
    """Read a price file. Raises `MissingFile`, or `UsageError` naming what is wrong."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Prices)
    except FileNotFoundError as error:
        raise MissingFile(f"expected a price file at {path}, found none") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the price file {path} can't be used: {error}") from error
