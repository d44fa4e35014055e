"""Of every endpoint Python and the library say the same, and what is refused says what to write."""

from __future__ import annotations

import json
from typing import Any, Optional

import pytest

import fluvio_cffi
from fluvio_cffi import InvalidArgumentError, _library
from fluvio_cffi._library import OK, ffi, lib, take_error
from fluvio_cffi._slots import Slots

FORM = 'endpoint must be "host:port", such as "127.0.0.1:9003", and an IPv6 address in brackets'
PORT = "endpoint must have a port between 1 and 65535"

TAKEN = [
    "127.0.0.1:1",
    "127.0.0.1:65535",
    "127.0.0.1:0000000009003",
    "localhost:1",
    "[::1]:1",
    "[::]:0001",
    "[::ffff:127.0.0.1]:1",
    "[1:2:3:4:5:6:7:8]:1",
    "[1:2:3:4:5:6:7::]:1",
    "[FE80::1%1]:1",
    "[fe80::1%0004294967295]:1",
]
REFUSED = {
    # No host, no port, or what no number is.
    ":9003": FORM,
    "host": FORM,
    "host:": FORM,
    ":": FORM,
    "[]:1": FORM,
    "[:1": FORM,
    "]:1": FORM,
    "host:http": FORM,
    "host:+1": FORM,
    "host:-1": FORM,
    "host: 1": FORM,
    "host:1 ": FORM,
    "host:1_0": FORM,
    "host:\u0663": FORM,
    "host:0x1": FORM,
    "host:1.0": FORM,
    "host:0": PORT,
    "host:000": PORT,
    "host:65536": PORT,
    "host:99999": PORT,
    "host:" + "9" * 5000: PORT,
    "[::1]:0": PORT,
    # Hosts that are none.
    "a b:1": FORM,
    "a\tb:1": FORM,
    "a\x7fb:1": FORM,
    "a\x1cb:1": FORM,
    "a\u00a0b:1": FORM,
    "a\u2028b:1": FORM,
    " host:1": FORM,
    "user@host:1": FORM,
    "http://host:1": FORM,
    "host/path:1": FORM,
    "host:1:2": FORM,
    # IPv6 without brackets, and brackets without IPv6.
    "::1:9003": FORM,
    "::1": FORM,
    ":::1": FORM,
    "fe80::1%1:9003": FORM,
    "[zzz]:1": FORM,
    "[zz:z]:1": FORM,
    "[host]:1": FORM,
    "[127.0.0.1]:1": FORM,
    "[[::1]]:1": FORM,
    "[::1:1": FORM,
    "::1]:1": FORM,
    "[::1]": FORM,
    "[::1]1": FORM,
    "[::1]x:1": FORM,
    "x[::1]:1": FORM,
    "[::1 ]:1": FORM,
    "[1::2::3]:1": FORM,
    "[1:2:3:4:5:6:7]:1": FORM,
    "[1:2:3:4:5:6:7:8:9]:1": FORM,
    "[12345::]:1": FORM,
    "[::1.2.3]:1": FORM,
    "[::1.2.3.256]:1": FORM,
    "[::1%]:1": FORM,
    "[::1%eth0]:1": FORM,
    "[::1%+1]:1": FORM,
    "[::1%4294967296]:1": FORM,
    "[::1%1%2]:1": FORM,
}


def said_by_the_library(slots: Slots, endpoint: str) -> Optional[str]:
    """Why it does not take it."""
    error = ffi.new("fluvio_error **")
    slot = slots.make()
    options = _library.options(json.dumps({"endpoint": endpoint}).encode())
    # Where it is taken, the attempt ends with its slot.
    if lib.fluvio_connect(slots.context, options, slot.user_data, error) == OK:
        return None
    refusal = take_error(error[0])
    assert isinstance(refusal, InvalidArgumentError)
    return str(refusal)


def test_what_is_taken() -> None:
    slots = Slots()
    for endpoint in TAKEN:
        fluvio_cffi.connect(endpoint).close()
        assert said_by_the_library(slots, endpoint) is None, endpoint


def test_what_is_refused() -> None:
    slots = Slots()
    connects: list[Any] = [fluvio_cffi.connect, fluvio_cffi.sync.connect]
    for endpoint, message in REFUSED.items():
        for connect in connects:
            with pytest.raises(InvalidArgumentError) as caught:
                connect(endpoint)
            assert str(caught.value).startswith(message), endpoint
        said = said_by_the_library(slots, endpoint)
        assert said is not None, endpoint
        assert said.endswith("is not host:port, such as 127.0.0.1:9003 or [::1]:9003"), endpoint


@pytest.mark.parametrize(
    ("endpoint", "advice"),
    [
        ("::1:9003", '[::1]:9003"'),
        ("2001:db8::1:9003", '[2001:db8::1]:9003"'),
        ("::ffff:127.0.0.1:1", '[::ffff:127.0.0.1]:1"'),
    ],
)
def test_an_address_without_brackets(endpoint: str, advice: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        fluvio_cffi.connect(endpoint)
    assert f', here "{advice}: ' in str(caught.value)
