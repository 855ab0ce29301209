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


@pytest.mark.parametrize("password", ["x9q/def", "x9q%zz", "x9q/b@c"])
def test_a_password_that_breaks_the_address_is_not_shown_either(password):
    with pytest.raises(UsageError) as caught:
        masked(f"postgresql://me:{password}@host/music")
    assert "percent-encode" in str(caught.value)
    assert "x9q" not in str(caught.value)
