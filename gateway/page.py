"""The page of a gateway: the services of its network, and the way to the nearest instance of each.

Values and rendering are pure and stand here; the HTTP server is in page_server.py and loaded only when there is a page.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from gateway.page_server import PageServer

REFRESH_S = 15
FAR = 100_000


class PageError(Exception):
    """The page cannot be served; the text names the address and the way out."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A node that runs the service: `address` and `port` are where users reach it, `distance` is the path's cost.

    `health` is what is known of it here (`healthy`, `unhealthy`, `unknown`), `bandwidth_mbps` 0 where nobody measured.
    """

    node: str
    address: str
    port: int
    distance: float | None = None
    bandwidth_mbps: float = 0.0
    health: str = "unknown"


@dataclass(frozen=True, slots=True)
class PageService:
    """A service with its instances, nearest first; `state` is its state on this node, empty where it does not run here.

    An instance is in order when `health_path` answers below 400; where that is empty, when `/` answers below 500.
    """

    name: str
    instances: tuple[Instance, ...] = ()
    state: str = ""
    health: str = ""
    health_path: str = ""


Directory = Callable[[], Sequence[PageService]]


class Page:
    """Serves the page at `address` in a thread of its own; `directory` is called from there for every request."""

    def __init__(self, address: tuple[str, int], directory: Directory, title: str = "PiCasso Gateway") -> None:
        self.address, self._directory, self._title = address, directory, title
        self._server: PageServer | None = None

    def start(self) -> None:
        """Listens, with the real port in `address` when it was 0; raises PageError, which names what is in the way."""
        from gateway.page_server import PageServer  # http.server only where there is a page

        host, port = self.address
        try:
            self._server = PageServer(self.address, self._directory, self._title)
        except OSError as error:
            raise PageError(
                f"the page cannot listen on {host}:{port}: {error.strerror or error}; "
                f"choose another address or port with `option page` in section gateway"
            ) from error
        self.address = host, self._server.server_address[1]
        self._server.run_in_thread()

    def stop(self) -> None:
        """Closes the port and ends the thread; requests in progress are not waited for."""
        if self._server is not None:
            self._server.stop()
            self._server = None


# --- rendering -----------------------------------------------------------------------------------------------

_STYLE = """
:root{color-scheme:light dark;--fg:#1b2530;--dim:#667381;--bg:#f4f6f8;--card:#fff;--line:#dfe5ea;--link:#0a66c2;
--ok:#1d8a4a;--bad:#c2382b;--wait:#a66a00}
@media(prefers-color-scheme:dark){:root{--fg:#e6ebf0;--dim:#93a1b0;--bg:#10161c;--card:#182129;--line:#2a3641;
--link:#6cb2ff;--ok:#4cc67e;--bad:#ff7a6b;--wait:#e5aa45}}
*{box-sizing:border-box}
body{margin:0;padding:1.2rem 1rem 3rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main,header,footer{max-width:44rem;margin:0 auto}
h1{font-size:1.35rem;margin:.3rem 0 0}
p{margin:.3rem 0 1rem}
.dim{color:var(--dim);font-size:.9rem}
article{background:var(--card);border:1px solid var(--line);border-radius:12px;margin:0 0 .8rem;padding:.9rem 1rem}
h2{font-size:1.1rem;margin:0;display:flex;gap:.6rem;align-items:center;flex-wrap:wrap}
a{color:var(--link);text-decoration:none}
a:hover,a:focus{text-decoration:underline}
h2 a{flex:1;min-width:0;overflow-wrap:anywhere;padding:.2rem 0}
.tag{font-size:.78rem;font-weight:600;border:1px solid currentColor;border-radius:99px;padding:.05rem .6rem}
.ok{color:var(--ok)}.bad{color:var(--bad)}.wait{color:var(--wait)}
ol{margin:.5rem 0 0;padding:0;list-style:none}
li{border-top:1px solid var(--line);padding:.4rem 0;display:flex;justify-content:space-between;gap:1rem}
li span:first-child{overflow-wrap:anywhere}
li span:last-child{white-space:nowrap}
"""


def render(title: str, services: Sequence[PageService]) -> str:
    """The list of services as one HTML page without any resource from elsewhere."""
    cards = "".join(map(_card, services)) or "<article>No service is placed in this network yet.</article>"
    count = f"{len(services)} service{'s' if len(services) != 1 else ''} in this network, the nearest copy first"
    return _document(title, f'<p class="dim">{count}</p>', cards, refresh=True)


def render_message(title: str, text: str, services: Sequence[PageService] = ()) -> str:
    """A page that says one thing, with the list of what there is."""
    links = "".join(f'<li><span><a href="{_href(s.name)}">{html.escape(s.name)}</a></span></li>' for s in services)
    body = f"<article>{html.escape(text)}{f'<ol>{links}</ol>' if links else ''}</article>"
    return _document(title, "", body + '<p><a href="/">All services</a></p>', refresh=False)


def to_json(services: Sequence[PageService]) -> str:
    """The list of services for programs."""
    return json.dumps({"services": [asdict(service) for service in services]}, indent=1) + "\n"


def _document(title: str, intro: str, body: str, refresh: bool) -> str:
    again = f'<meta http-equiv="refresh" content="{REFRESH_S}">' if refresh else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"{again}<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><header><h1>{html.escape(title)}</h1>{intro}</header><main>{body}</main></body></html>\n"
    )


def _href(service: str) -> str:
    return html.escape(f"/{quote(service, safe='')}/")


def _card(service: PageService) -> str:
    rows = "".join(map(_row, service.instances)) or '<li><span class="dim">no instance</span></li>'
    state = ""
    if service.state:
        text = service.state if service.health in ("", "unknown") else f"{service.state}, {service.health}"
        state = f'<span class="tag {_tone(service)}">here: {html.escape(text)}</span>'
    name = html.escape(service.name)
    return f'<article><h2><a href="{_href(service.name)}">{name}</a>{state}</h2><ol>{rows}</ol></article>'


def _tone(service: PageService) -> str:
    if service.health == "unhealthy" or service.state in ("refused", "crash-loop"):
        return "bad"
    return "ok" if service.state == "running" else "wait"


def _row(instance: Instance) -> str:
    tone = {"healthy": "ok", "unhealthy": "bad"}.get(instance.health, "dim")
    facts = [f"{instance.bandwidth_mbps:.1f} Mbit/s"] if instance.bandwidth_mbps > 0 else []
    # Where only the default way leads, its cost is a placeholder and says nothing.
    is_known = instance.distance is not None and instance.distance < FAR
    facts += [f"distance {instance.distance:g}"] if is_known else []
    facts += [instance.health] if instance.health != "unknown" else []
    right = html.escape(" · ".join(facts))
    return f'<li><span>{html.escape(instance.node)}</span><span class="{tone}">{right}</span></li>'
