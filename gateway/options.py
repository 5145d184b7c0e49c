"""What the text of an option means: readers from the text in a UCI file to what the program uses.

Each raises ValueError with what is wrong and what would be right; the caller puts value, line and option before it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.protocol import names

UNIX_PATH_BYTES = 107  # sun_path of Linux without its NUL

_BOOLEANS = {"1": True, "on": True, "true": True, "yes": True, "enabled": True} | {
    "0": False,
    "off": False,
    "false": False,
    "no": False,
    "disabled": False,
}
_QUANTITY = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>[A-Za-z]?)\Z", re.ASCII)
_IDENTIFIER = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")
_FACE = re.compile(
    r"(?P<scheme>tcp|udp)(?P<family>[46])://(?:\[(?P<six>[^\]]*)\]|(?P<host>[^\[\]/:]*))(?P<port>:[0-9]+)?\Z"
)


def boolean(text: str) -> bool:
    """As UCI writes them: 1/0, on/off, true/false, yes/no."""
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError("is no boolean; write 1 or 0") from None


def plain(text: str) -> str:
    """One line of text, at most 255 bytes."""
    if not text.isprintable() or len(text.encode()) > 255:
        raise ValueError("is not one line of at most 255 bytes")
    return text


def identifier(text: str) -> str:
    """A name that stands as one component in names of the network: nodes, zones, providers."""
    if not _IDENTIFIER.match(text):
        raise ValueError("is no name; use a-z, 0-9 and - inside, at most 63 characters")
    return text


def node_of(hostname: str) -> str:
    """A node's name made of a host's: its first label in lower case, `-` for what a node's name cannot have."""
    name = re.sub(r"[^a-z0-9]+", "-", hostname.split(".")[0].lower())[:63].strip("-")
    return name or "gateway"


def interface(text: str) -> str:
    """A network of OpenWrt's, or a network device."""
    if not re.fullmatch(r"[A-Za-z0-9_.:@-]{1,32}", text):
        raise ValueError("is no name of a network or network device")
    return text


def directory(text: str) -> Path:
    """An absolute path."""
    if not text.startswith("/") or "\0" in text:
        raise ValueError("is no absolute path; it must begin with /")
    return Path(text)


def ndn_name(text: str) -> str:
    """The URI of an NDN name of at least one component."""
    if not text.startswith("/") or "//" in text or text == "/":
        raise ValueError("is no NDN name; write it like /guifi/sants")
    try:
        names.parse(text)
    except ValueError:
        raise ValueError("is no NDN name: a typed component or a % escape in it is wrong") from None
    return text.rstrip("/")


def _quantity(text: str, units: dict[str, int], what: str, example: str) -> float:
    match = _QUANTITY.match(text)
    unit = match["unit"] if match else ""
    known = unit if unit in units else unit.upper()
    if match is None or (unit and known not in units):
        raise ValueError(f"is no {what}; write it like {example}")
    return float(match["number"]) * (units[known] if unit else 1)


def size_bytes(text: str) -> int:
    """Bytes, K, M or G of 1024."""
    return int(_quantity(text, {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}, "size", "16M (K, M or G)"))


def rate_bps(text: str) -> int:
    """Bits a second, K, M or G of 1000; above zero."""
    rate = int(_quantity(text, {"K": 10**3, "M": 10**6, "G": 10**9}, "rate", "10M (bit/s; K, M or G)"))
    if rate < 1000:
        raise ValueError("is too slow for a link; the least is 1K (bit/s)")
    return rate


def seconds(text: str) -> float:
    """Seconds, or s, m, h, d; at least 0.1 s and at most 10 years."""
    time_s = _quantity(text, {"s": 1, "m": 60, "h": 3600, "d": 86400}, "time", "30s (s, m, h or d)")
    if not 0.1 <= time_s <= 10 * 365 * 86400:
        raise ValueError("is out of range; a time here is between 0.1s and 3650d")
    return time_s


def number(low: float, high: float) -> Callable[[str], float]:
    """A reader of decimal numbers from `low` to `high`."""

    def read(text: str) -> float:
        if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", text, re.ASCII) or not low <= float(text) <= high:
            raise ValueError(f"is no number between {low:g} and {high:g}")
        return float(text)

    return read


def integer(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(f"is no whole number between {low} and {high}")
        return int(text)

    return read


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader of one of these words."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is none of {', '.join(choices)}{did_you_mean(text, choices)}")
        return text

    return read


def listen_uri(text: str) -> str:
    """A face URI to listen on: unix:///path, tcp4://address:port (tcp6, udp4, udp6); port 0 is any free."""
    return _face(text, listen=True)


def face_uri(text: str) -> str:
    """A face URI to connect to; as listen_uri, host names allowed."""
    return _face(text, listen=False)


def unix_uri(text: str) -> str:
    """The face URI of a unix socket."""
    if not text.startswith("unix://"):
        raise ValueError("is no unix socket; write it like unix:///run/picasso/ndn.sock")
    return _face(text, listen=False)


def _face(text: str, listen: bool) -> str:
    if text.startswith("unix://"):
        return _unix(text)
    match = _FACE.match(text)
    if match is None:
        raise ValueError(
            "is no face URI; write it like unix:///run/picasso/ndn.sock, tcp4://10.1.0.2:6363, udp6://[::]:6363"
        )
    if match["port"] is None:
        raise ValueError("has no port; the usual one of NDN is :6363")
    port = int(match["port"][1:]) if len(match["port"]) <= 6 else 65536
    if port > 65535 or (port == 0 and not listen):
        raise ValueError("has a port that is not between 1 and 65535")
    host = _host(match["six"], match["host"], int(match["family"]), listen)
    return f"{match['scheme']}{match['family']}://{host}:{port}"


def face_parts(uri: str) -> tuple[str, str, int]:
    """(scheme, host, port) of a face URI that listen_uri or face_uri returned, not of a unix socket's."""
    scheme, _, rest = uri.partition("://")
    host, _, port = rest.rpartition(":")
    return scheme, host.strip("[]"), int(port)


def _host(six: str | None, host: str | None, family: int, listen: bool) -> str:
    try:
        address = ipaddress.ip_address((six if six is not None else host) or "")
    except ValueError:
        return _host_name(six, host, listen)
    if address.version != family or (six is None) != (family == 4):
        raise ValueError(f"has an address that is not IPv{family}{', which stands in [ ]' if family == 6 else ''}")
    if not listen and address.is_unspecified:
        raise ValueError("has an address to listen on; name the peer's own address")
    return f"[{address}]" if family == 6 else str(address)


def _host_name(six: str | None, host: str | None, listen: bool) -> str:
    digits_only = host is not None and host.replace(".", "").isdigit()
    if six is not None or digits_only or host is None or not _HOST.match(host):
        raise ValueError("has no valid address")
    if listen:
        raise ValueError("has a host name; to listen, name an address of this machine or 0.0.0.0")
    return host


def _unix(text: str) -> str:
    path = text.removeprefix("unix://")
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("has no absolute path; write it like unix:///run/picasso/ndn.sock")
    if len(path.encode()) > UNIX_PATH_BYTES:
        raise ValueError(f"has a path longer than the {UNIX_PATH_BYTES} bytes that a unix socket can have")
    return text


def http_address(text: str) -> tuple[str, int]:
    """`http://address:port` as (host, port); port 0 is any free one."""
    scheme, _, rest = text.rstrip("/").partition("://")
    try:
        uri = _face(f"tcp{6 if rest.startswith('[') else 4}://{rest}", listen=True)
    except ValueError:
        uri = ""
    if scheme != "http" or not uri:
        raise ValueError("is no address for a page; write it like http://0.0.0.0:8080")
    return face_parts(uri)[1:]


def ip_address(text: str) -> str:
    """An address of this machine, or `0.0.0.0` for all of them."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("is no IP address; write it like 10.1.24.7, or 0.0.0.0 for every address") from None


def port_range(text: str) -> tuple[int, int]:
    """A port or a range of ports such as 8000-8999, both ends included."""
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text, re.ASCII)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high <= 65535:
        raise ValueError("is no port or range of ports; write it like 8080 or 8000-8999")
    return low, high


def provider_or_any(text: str) -> str:
    """A provider's name, or * for every provider of the network."""
    return text if text == "*" else identifier(text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` for the nearest known word, else nothing."""
    import difflib  # for a file with a mistake in it

    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f", did you mean {near[0]!r}?" if near else ""
