"""What is shown of the address of a database, and what never is."""

import pytest

from nearfield.dsn import has_password, masked
from nearfield.errors import UsageError


def test_no_password_is_shown():
    assert masked("postgresql://me:secret@host:5433/music") == (
        "user=me dbname=music host=host port=5433"
    )
    assert has_password("postgresql://me:secret@host/music")
    assert not has_password("host=a,b port=1,2 dbname=music")


@pytest.mark.parametrize(
    "password", ["x9q/def", "x9q%zz", "x9q/b@c", "a@x9q", "/x9q", "1/x9q", "a/x9q?b"]
)
def test_a_password_that_breaks_the_address_is_not_shown_either(password):
    with pytest.raises(UsageError) as caught:
        masked(f"postgresql://me:{password}@host/music")
    assert "percent-encode" in str(caught.value)
    assert "x9q" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["u:x9q%2F@h/db", "u:x9q?@h:5432/db", "u:x9q@[fd00::1]:5432,h2:5433/db?options=a@b"]
)
def test_an_address_that_is_whole_is_taken(address):
    assert "host=" in masked(f"postgresql://{address}")
    assert "x9q" not in masked(f"postgresql://{address}")
