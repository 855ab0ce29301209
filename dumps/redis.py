"""The matrix in Redis, for a service that looks up one recording at a time.

    nearfield:current           the published run (its fingerprint), set last
    nearfield:runs              set of all runs that have keys
    nearfield:RUN:facts         hash: n, k, space, recall, loaded (rows so far), ...
    nearfield:RUN:list:ID       k pairs (row int32, distance float32), little-endian, nearest first
    nearfield:RUN:ids:B         hash: row % 128 -> recording id, for the rows B * 128 ...
    nearfield:loading           the loader's connection

Owns these keys and one loader at a time. Readers see the whole of one run: `LOOKUP` asks for
pointer, list and ids at once. Refuses labels: a service has them elsewhere.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from dumps.dump.source import Lists, Matrix, opened_matrix
from dumps.postgres.gate import Verdict, verdict
from nearfield.errors import DatabaseError, InputRejected, RunLocked, UsageError
from nearfield.manifest import fingerprint
from nearfield.progress import progress
from nearfield.run import Run

VERSION = 1
PREFIX = "nearfield"
BUCKET = 128
"""Ids in a hash: so few that Redis packs them."""
BATCH_PLACES = 1 << 17
"""Places of the matrix that are sent at once: 1 MiB."""
LOCK_S = 600
TIMEOUT_S = 120
"""How long a server may take over one batch."""
PAIR = np.dtype([("row", "<i4"), ("distance", "<f4")])
KEY_BYTES = 150
"""What Redis takes for a recording beyond its list. Measured."""

LOOKUP = """
local run = redis.call('GET', 'nearfield:current')
if not run then return {} end
local first = 'nearfield:' .. run .. ':'
local bytes = redis.call('GETRANGE', first .. 'list:' .. ARGV[1], 0, 8 * ARGV[2] - 1)
local ids = {}
for at = 1, #bytes, 8 do
  local row = struct.unpack('<i4', bytes, at)
  local bucket = string.format('%sids:%d', first, math.floor(row / 128))
  ids[#ids + 1] = redis.call('HGET', bucket, string.format('%d', row % 128))
end
return {run, bytes, ids}
"""
"""A lookup in one step: ARGV are a recording id and k. Returns run, pairs, and their ids."""
_CLAIM = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""


@dataclass(frozen=True)
class RedisReport:
    """What a load did. `resumed_from`: the row at which it went on; `removed`: runs whose keys
    were deleted."""

    run: str
    rows: int
    k: int
    already_loaded: bool
    resumed_from: int
    removed: tuple[str, ...]
    forced: bool
    seconds: float


@dataclass(frozen=True)
class Similar:
    """A neighbour: its id and distance."""

    recording_id: str
    distance: float


def load_redis(run: Run, url: str, *, force: bool = False) -> RedisReport:
    """Load the run's lists and ids, check that all are there, publish them, remove other runs.

    Called again after an interruption it goes on where it was. Raises `QualityGate` for an
    unverified run unless `force`, `RunLocked` while another loader is connected, `DatabaseError`.
    Readers keep what they had until the last step. Memory: some megabytes, whatever n is.
    """
    started = time.monotonic()
    sha256 = run.finished_matrix().files[run.matrix.name].sha256
    judged = verdict(run, sha256, force=force)
    name = fingerprint(version=VERSION, matrix=sha256)
    with connected(url) as client, _alone(client) as still_alone:
        current = client.get(f"{PREFIX}:current") == name.encode()
        resumed = 0
        with opened_matrix(run, labels=False) as matrix:
            already = current and _is_loaded(client, name, matrix)
            if not already:
                # what is lost of the current run had room
                _check_room(client, name, matrix, lost=current)
                resumed = _load(client, name, matrix, still_alone)
                _check_loaded(client, name, matrix)
            _publish(client, name, run, matrix, judged)
            rows = matrix.recordings_count
        removed = _remove_others(client, name, still_alone)
    return RedisReport(
        run=name,
        rows=rows,
        k=run.config.columns,
        already_loaded=already,
        resumed_from=resumed,
        removed=removed,
        forced=judged.forced,
        seconds=round(time.monotonic() - started, 3),
    )


class Reader:
    """Lookups over one connection; see `connected`."""

    def __init__(self, client: Any) -> None:
        self.lookup = client.register_script(LOOKUP)

    def similar(self, recording_id: str, k: int = 10) -> list[Similar]:
        """The k nearest of a recording, nearest first. Raises `InputRejected` if it is unknown."""
        found = self.lookup(args=[recording_id, k])
        if not found or not found[1]:
            what = f"no recording {recording_id!r}" if found else "no published run"
            raise InputRejected(f"there is {what} in this Redis")
        distances = np.frombuffer(found[1], PAIR)["distance"].tolist()
        return [
            Similar(name.decode(), distance)
            for name, distance in zip(found[2], distances, strict=True)
        ]


@contextmanager
def connected(url: str) -> Iterator[Any]:
    """A client of the server at `url`, whose errors become `DatabaseError`."""
    try:
        import redis
    except ImportError as error:
        raise UsageError("Redis needs one more package: pip install 'nearfield[redis]'") from error
    where = shown(url)
    try:
        client = redis.Redis.from_url(url, single_connection_client=True, socket_timeout=TIMEOUT_S)
    except (ValueError, redis.RedisError) as error:
        raise _failed(where, error) from error
    try:
        yield client
    except redis.OutOfMemoryError as error:
        raise DatabaseError(
            f"{where} has no memory left: raise maxmemory there, then run the same command again, "
            "which goes on where it was. What was published before is still there"
        ) from error
    except redis.RedisError as error:
        raise _failed(where, error) from error
    finally:
        client.close()


def check_address(url: str) -> None:
    """Raise `UsageError`, which doesn't repeat the URL, for one that can't be read: what follows a
    raw / ? or # in a password would be taken for path or options, and be shown.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (ValueError for what is no number)
        torn = parts.scheme != "unix" and "@" in parts.path + parts.query + parts.fragment
    except ValueError:
        torn = True
    if torn:
        raise UsageError(
            "the Redis address can't be read: expected redis://user:password@host:port/0 or "
            "unix://path, with special characters of a password percent-encoded (/ as %2F)"
        )


def has_password(url: str) -> bool:
    """Whether a URL holds a password, in either of the two places that are read."""
    return urlsplit(url).password is not None or "password=" in urlsplit(url).query


def shown(url: str) -> str:
    """The URL without user, password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _failed(where: str, error: Exception) -> DatabaseError:
    return DatabaseError(
        f"Redis at {where}: {error}. Check address, password and server, then run the same "
        "command again, which goes on where it was"
    )


@contextmanager
def _alone(client: Any) -> Iterator[Any]:
    """Hold the loader's lock; yields a function that renews it, to be called between batches.

    The lock names a connection, so one whose holder died is taken over at once.
    """
    key = f"{PREFIX}:loading"
    server = client.info("server")["run_id"]
    own = f"{server}:{client.client_id()}"
    claim = client.register_script(_CLAIM)
    holder = (client.get(key) or b"").decode()
    alive = holder.partition(":")[0] == server and client.client_list(
        client_id=[holder.partition(":")[2]]
    )
    if alive or not claim(keys=[key], args=[holder, own, LOCK_S]):
        raise RunLocked("another nearfield process loads into this Redis: wait until it ends")

    def renew() -> None:
        if not claim(keys=[key], args=[own, own, LOCK_S]):
            raise RunLocked("another nearfield process took this Redis over: run again later")

    try:
        yield renew
    finally:
        if client.get(key) == own.encode():
            client.delete(key)


def _check_room(client: Any, name: str, matrix: Matrix, *, lost: bool) -> None:
    memory = client.info("memory")
    limit = int(memory.get("maxmemory", 0))
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if limit and policy.startswith("allkeys"):
        raise DatabaseError(
            f"this Redis drops keys when it is full (maxmemory-policy {policy}), so lists would "
            "vanish unnoticed: set it to noeviction, or load into another server"
        )
    left = matrix.n - int(client.hget(f"{PREFIX}:{name}:facts", "loaded") or 0)
    needed = matrix.recordings_count * left // max(1, matrix.n) * (8 * matrix.k + KEY_BYTES)
    free = limit - int(memory["used_memory"])
    if limit and needed > free and not lost:
        raise DatabaseError(
            f"the matrix takes about {needed:,} bytes beside what is there, this Redis has "
            f"{max(0, free):,} left of maxmemory {limit:,}: raise it"
        )


def _load(client: Any, name: str, matrix: Matrix, still_alone: Any) -> int:
    """Send what isn't there yet; returns the row at which that began."""
    facts = f"{PREFIX}:{name}:facts"
    first = int(client.hget(facts, "loaded") or 0)
    client.sadd(f"{PREFIX}:runs", name)
    with progress("load", matrix.n - first, "recordings") as advance:
        done = first
        for block in matrix.blocks(BATCH_PLACES, first):
            still_alone()
            reached = int(block.rows[-1]) + 1 if len(block.rows) else done
            # repeated after an interruption, a batch writes the same again
            _send(client, name, block, reached)
            advance(reached - done)
            done = reached
    return first


def _send(client: Any, name: str, block: Lists, reached: int) -> None:
    pairs = np.empty(block.neighbours.shape, PAIR)
    pairs["row"], pairs["distance"] = block.neighbours, block.distances
    ids = block.ids.to_pylist()
    buckets: dict[int, dict[int, str]] = {}
    for row, text in zip(block.rows.tolist(), ids, strict=True):
        buckets.setdefault(row // BUCKET, {})[row % BUCKET] = text
    pipeline = client.pipeline(transaction=False)
    for text, pair in zip(ids, pairs, strict=True):
        pipeline.set(f"{PREFIX}:{name}:list:{text}", pair.tobytes())
    for bucket, fields in buckets.items():
        pipeline.hset(f"{PREFIX}:{name}:ids:{bucket}", mapping=fields)
    pipeline.hset(f"{PREFIX}:{name}:facts", "loaded", reached)
    pipeline.execute()


def _is_loaded(client: Any, name: str, matrix: Matrix) -> bool:
    """Whether all of a published run is there still; what isn't is sent anew."""
    try:
        _check_loaded(client, name, matrix)
    except DatabaseError:
        return False
    return True


def _check_loaded(client: Any, name: str, matrix: Matrix) -> None:
    """Every key is there; and of each batch, the last list and id are what was sent."""
    for block in matrix.blocks(BATCH_PLACES):
        if not len(block.rows):
            continue
        ids = block.ids.to_pylist()
        there = client.exists(*(f"{PREFIX}:{name}:list:{text}" for text in ids))
        row = int(block.rows[-1])
        stored = client.get(f"{PREFIX}:{name}:list:{ids[-1]}") or b""
        text = client.hget(f"{PREFIX}:{name}:ids:{row // BUCKET}", row % BUCKET)
        pairs = np.frombuffer(stored, PAIR)
        same = np.array_equal(pairs["row"], block.neighbours[-1]) and np.array_equal(
            pairs["distance"], block.distances[-1]
        )
        if there != len(ids) or not same or text != ids[-1].encode():
            client.delete(f"{PREFIX}:{name}:facts")
            raise DatabaseError(
                f"of {len(ids):,} lists around row {row:,} only {there:,} are in this Redis as "
                "they were sent: nothing was published. Does another program delete keys there? "
                "Run again to load anew"
            )


def _publish(client: Any, name: str, run: Run, matrix: Matrix, judged: Verdict) -> None:
    facts = {
        "format_version": VERSION,
        "n": matrix.recordings_count,
        "k": matrix.k,
        "space": run.config.space,
        "run_fingerprint": run.config.fingerprint,
        "recall": "" if judged.recall is None else judged.recall,
        "forced": int(judged.forced),
        "published": int(time.time()),
    }
    client.hset(f"{PREFIX}:{name}:facts", mapping=facts)
    client.set(f"{PREFIX}:current", name)


def _remove_others(client: Any, name: str, still_alone: Any) -> tuple[str, ...]:
    others = {other.decode() for other in client.smembers(f"{PREFIX}:runs")} - {name}
    for other in sorted(others):
        # they say how much of it is there
        client.delete(f"{PREFIX}:{other}:facts")
        cursor = 0
        while True:
            still_alone()
            cursor, keys = client.scan(cursor, match=f"{PREFIX}:{other}:*", count=10_000)
            if keys:
                client.unlink(*keys)
            if not cursor:
                break
        client.srem(f"{PREFIX}:runs", other)
    return tuple(sorted(others))
