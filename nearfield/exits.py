"""How a command ends: an error as one sentence on standard error, and its exit code."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nearfield.errors import NearfieldError, UsageError

INTERRUPTED = 130
WRONG_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""What the system says to a path that the user can't read, or can't write to."""


@contextmanager
def errors_end(program: str) -> Iterator[None]:
    """Errors that a user can do something about end the program here; others pass, as defects."""
    try:
        yield
    except NearfieldError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None or error.errno not in WRONG_PLACE:
            raise
        print(
            f"{program}: {error.strerror}: {error.filename}. Check the path and its rights, or "
            "choose another place",
            file=sys.stderr,
        )
        sys.exit(UsageError.exit_code)
