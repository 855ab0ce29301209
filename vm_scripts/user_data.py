"""The user-data of a machine: deploy/machine/cloud-init.yaml, filled in. Holds nothing secret."""

import base64
from pathlib import Path

from nearfield.errors import UsageError

DEPLOY = Path(__file__).parents[1] / "deploy" / "machine"


def user_data(*, public_key: str, idle_minutes: int, folder: str, user: str) -> str:
    """The text for a machine; the same for all machines of a run."""
    if '"' in public_key or "\n" in public_key or not public_key.startswith(("ssh-", "ecdsa-")):
        raise UsageError("expected a public SSH key of one line")
    script = base64.b64encode((DEPLOY / "deadman.sh").read_bytes()).decode()
    text = (DEPLOY / "cloud-init.yaml").read_text()
    head, _, body = text.partition("users:")
    filled = {
        "@SSH_KEY@": public_key,
        "@IDLE_MINUTES@": str(idle_minutes),
        "@FOLDER@": folder,
        "@USER@": user,
        "@DEADMAN@": script,
    }
    for mark, value in filled.items():
        body = body.replace(mark, value)
    return f"{head.splitlines()[0]}\nusers:{body}"
