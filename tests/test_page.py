"""The page with real HTTP on 127.0.0.1: the list, the redirects, and what a hostile visitor sends."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import re
import socket
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser

import pytest

from gateway import page_server
from gateway.page import Instance, Page, PageError, PageService, render
from gateway.page_server import instance_url, is_address


@pytest.fixture(autouse=True)
def stop_quickly(monkeypatch):
    monkeypatch.setattr(page_server, "STOP_S", 0.01)


class Service:
    """A small HTTP service on a free port that counts its health checks."""

    def __init__(self, status=200, delay_s=0.0):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                time.sleep(outer.delay_s)
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.status, self.delay_s, self.asked = status, delay_s, []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def instance(self, node="n1", **fields):
        return Instance(node, "127.0.0.1", self.port, **fields)


@pytest.fixture
def running():
    """Starts services and pages, and stops them at the end."""
    with contextlib.ExitStack() as stack:

        def start(thing):
            if isinstance(thing, Page):
                thing.start()
            stack.callback(thing.stop)
            return thing

        yield start


@pytest.fixture
def serve(running):
    """A page of these services; gives a function that asks it."""

    def start(*services):
        page = running(Page(("127.0.0.1", 0), lambda: services))

        def ask(target, method="GET", body=None, headers=None):
            connection = http.client.HTTPConnection(*page.address, timeout=5)
            connection.putrequest(method, target, skip_host=bool(headers and "Host" in headers))
            for name, value in {**(headers or {}), **({"Content-Length": str(len(body))} if body else {})}.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            answer.text = answer.read().decode()
            connection.close()
            return answer

        ask.address = page.address
        return ask

    return start


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def dead(node="n9"):
    return Instance(node, "127.0.0.1", free_port())


def test_the_list_shows_every_service_with_its_instances_nearest_first(serve):
    """Name, state here, health, and the heads in the order that the directory gives."""
    near = Instance("upc-3", "10.0.0.3", 8001, 2.0, 34.5, "healthy")
    far = Instance("gracia-1", "10.0.0.9", 8001, 7.0, 0.0, "unhealthy")
    answer = serve(PageService("radio", (near, far), "running", "healthy"), PageService("wiki"))("/")
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    text = re.sub(r"<style>.*</style>|<[^>]+>", " ", answer.text)
    assert re.search(r"radio\s+here: running, healthy\s+upc-3\s+34.5 Mbit/s · distance 2 · healthy\s+gracia-1", text)
    assert "no instance" in text and "2 services" in text
    assert '<a href="/radio/">' in answer.text and 'http-equiv="refresh"' in answer.text


def test_the_page_needs_nothing_from_elsewhere(serve):
    """No script, image, font or style is fetched: it works on an island."""

    class Tags(HTMLParser):
        def __init__(self):
            super().__init__()
            self.found = []

        def handle_starttag(self, tag, attrs):
            self.found.append((tag, dict(attrs)))

    answer = serve(PageService("radio", (dead(),)))("/")
    parser = Tags()
    parser.feed(answer.text)
    assert {"html", "style", "main", "article"} <= {tag for tag, _ in parser.found}
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in parser.found}
    assert all(not (a.get("href") or "/").startswith(("http", "//")) for _, a in parser.found)
    assert "url(" not in answer.text and "@import" not in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_the_list_for_programs_is_json(serve):
    """`/services.json` has the same facts."""
    answer = serve(PageService("radio", (Instance("n1", "10.0.0.1", 8001, 2.0),), "running"))("/services.json")
    (service,) = json.loads(answer.text)["services"]
    assert service["name"] == "radio" and service["instances"][0]["address"] == "10.0.0.1"
    assert answer.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_a_service_path_leads_to_the_nearest_instance_with_path_and_query(running, serve, method):
    """307 keeps method and body; path and query go along as they came."""
    service = running(Service())
    ask = serve(PageService("radio", (service.instance(), dead())))
    answer = ask("/radio/a%20b/c?x=1&y=%2F", method, body=b"k=v" if method in ("POST", "PUT") else None)
    assert answer.status == 307
    assert answer.headers["Location"] == f"http://127.0.0.1:{service.port}/a%20b/c?x=1&y=%2F"
    assert (answer.text == "") == (method == "HEAD")


def test_head_brings_the_headers_and_no_body(serve):
    """The length is that of the page, and nothing follows the headers."""
    with socket.create_connection(serve(PageService("radio")).address, 5) as visitor:
        visitor.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        headers, _, body = b"".join(iter(lambda: visitor.recv(4096), b"")).partition(b"\r\n\r\n")
    assert headers.startswith(b"HTTP/1.0 200") and int(re.search(rb"Content-Length: (\d+)", headers)[1]) > 1000
    assert body == b""


def test_a_service_without_a_slash_leads_to_its_root(running, serve):
    """`/radio` and `/radio/` are the same place."""
    service = running(Service())
    ask = serve(PageService("radio", (service.instance(),)))
    assert (
        ask("/radio").headers["Location"] == ask("/radio/").headers["Location"] == f"http://127.0.0.1:{service.port}/"
    )


@pytest.mark.parametrize("broken", ["closed port", "error status", "silence"])
def test_the_next_instance_is_taken_when_the_nearest_does_not_answer(running, serve, monkeypatch, broken):
    """A dead, failing or hanging instance costs at most the check's time."""
    monkeypatch.setattr(page_server.check, "__defaults__", (0.2,))
    first = {
        "closed port": dead,
        "error status": lambda: running(Service(503)).instance("n9"),
        "silence": lambda: running(Service(delay_s=0.6)).instance("n9"),
    }[broken]()
    second = running(Service())
    started = time.monotonic()
    answer = serve(PageService("radio", (first, second.instance()), health_path="/health"))("/radio/")
    assert answer.headers["Location"] == f"http://127.0.0.1:{second.port}/"
    assert second.asked == ["/health"]
    assert time.monotonic() - started < 0.55


def test_when_nobody_answers_the_visitor_is_told_and_when_to_come_again(serve):
    """503 with a plain page and Retry-After."""
    answer = serve(PageService("radio", (dead(), dead())))("/radio/x")
    assert answer.status == 503 and answer.headers["Retry-After"] == "5"
    assert "No instance of radio answers at the moment (2 tried)" in answer.text


def test_health_is_asked_once_for_many_visitors(running, serve):
    """The answer is kept for two seconds, so that visitors do not become load."""
    service = running(Service())
    ask = serve(PageService("radio", (service.instance(),)))
    for _ in range(10):
        assert ask("/radio/").status == 307
    assert len(service.asked) == 1


def test_a_service_without_health_check_is_in_order_when_it_answers_at_all(running, serve):
    """404 at `/` is a living server where no health path is declared, and a sick one where it is."""
    service = running(Service(404))
    assert serve(PageService("api", (service.instance(),)))("/api/").status == 307
    assert serve(PageService("api", (service.instance(),), health_path="/health"))("/api/").status == 503


def test_an_unknown_service_is_404_with_the_list_of_those_there_are(serve):
    """A typing error shows what there is."""
    answer = serve(PageService("radio"))("/radoi/x")
    assert answer.status == 404
    assert "There is no service &#x27;radoi&#x27;" in answer.text and '<a href="/radio/">' in answer.text


def test_names_and_paths_are_escaped(serve):
    """Neither a service, a node, a state nor the visitor's path can bring markup into the page."""
    evil = '"><script>alert(1)</script>'
    service = PageService(evil, (Instance(evil, "10.0.0.1", 80, health=evil),), state=evil, health=evil)
    ask = serve(service)
    for target in ("/", "/%3Cscript%3Ealert(1)%3C/script%3E", "/%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E/x"):
        assert "<script" not in ask(target).text
    assert "<script" not in render(evil, [service])


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example/x",
        "/\\evil.example",
        "http://evil.example/radio/",
        "/radio//evil.example",
        "/radio/@evil.example",
        "/radio/..//evil.example",
        "/radio/%0d%0aLocation:%20http://evil.example",
        "/radio?//evil.example",
    ],
)
def test_no_path_leads_to_another_host(running, serve, target):
    """Whatever the target holds, the redirect goes to the instance or there is none."""
    service = running(Service())
    answer = serve(PageService("radio", (service.instance(),)))(target)
    locations = answer.headers.get_all("Location") or []
    assert all(location.startswith(f"http://127.0.0.1:{service.port}/") for location in locations)
    assert (answer.status == 307) == bool(locations)


def test_the_host_header_is_not_looked_at(running, serve):
    """A forged Host changes nothing in the answer."""
    service = running(Service())
    answer = serve(PageService("radio", (service.instance(),)))("/radio/", headers={"Host": "evil.example"})
    assert answer.headers["Location"] == f"http://127.0.0.1:{service.port}/"
    assert "evil.example" not in answer.text


@pytest.mark.parametrize("address", ["evil.example/x", "a@b", "10.0.0.1:80", "", "fe80::1%eth0", "-x", "a b", "é"])
def test_an_address_that_is_none_is_never_redirected_to(serve, monkeypatch, address):
    """The decision's address goes into a header only if it is a host, even if something answers there."""
    monkeypatch.setattr(page_server, "check", lambda *_: True)
    assert not is_address(address)
    assert serve(PageService("radio", (Instance("n1", address, 80),)))("/radio/").status == 503


def test_ipv6_addresses_stand_in_brackets():
    assert is_address("fd00::1") and is_address("10.0.0.1") and is_address("pi.local")
    assert instance_url(Instance("n1", "fd00::1", 8001), "x", "") == "http://[fd00::1]:8001/x"


@pytest.mark.parametrize(
    "junk",
    [b"\x00\xff\x17junk\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70000, b"BREW / HTTP/1.0\r\n\r\n"],
)
def test_junk_on_the_port_is_answered_or_closed_and_the_page_goes_on(serve, junk):
    """A port scanner does not stop the page."""
    ask = serve(PageService("radio"))
    with socket.create_connection(ask.address, 2) as visitor:
        visitor.sendall(junk)
        with contextlib.suppress(OSError):
            visitor.shutdown(socket.SHUT_WR)
            visitor.recv(100)
    assert ask("/").status == 200


def test_connections_are_bounded(serve, monkeypatch):
    """Visitors beyond the limit are sent away at once, and the page is there again when the others have gone."""
    monkeypatch.setattr(page_server, "REQUEST_S", 0.5)
    ask = serve(PageService("radio"))
    with contextlib.ExitStack() as stack:
        visitors = [
            stack.enter_context(socket.create_connection(ask.address, 2))
            for _ in range(page_server.MAX_CONNECTIONS + 8)
        ]
        assert all(visitor.recv(100).startswith(b"HTTP/1.0 503") for visitor in visitors[-8:])
    deadline = time.monotonic() + 5
    while (status := ask("/").status) != 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert status == 200


def test_a_visitor_who_sends_a_byte_at_a_time_is_dropped_at_the_deadline(serve, monkeypatch):
    """The deadline counts from the connection and not from the last byte."""
    monkeypatch.setattr(page_server, "REQUEST_S", 0.3)
    with socket.create_connection(serve(PageService("radio")).address, 2) as visitor:
        started = time.monotonic()
        visitor.settimeout(0.05)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - started < 2:
                visitor.sendall(b"G")
                with contextlib.suppress(TimeoutError):
                    if not visitor.recv(100):
                        break
        assert time.monotonic() - started < 1


def test_a_port_in_use_is_an_error_that_names_it():
    """The owner reads which address is taken and which option to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PageError, match=rf"127\.0\.0\.1:{port}: Address already in use; .*option page"):
            Page(("127.0.0.1", port), list).start()


def test_stopping_frees_the_port_and_ends_the_thread():
    """After stop nothing listens, and the same port can be used at once."""
    page = Page(("127.0.0.1", 0), list)
    page.start()
    page.stop()
    assert "page" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(page.address, 1)
    again = Page(page.address, list)
    again.start()
    again.stop()


def test_a_gateway_without_a_page_does_not_load_an_http_server():
    """Memory on a small router: http.server comes with the first page and not with the import."""
    code = "import sys, gateway.page; sys.exit('http.server' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == 0


@pytest.mark.parametrize("health_path", ["", "/", "/health"])
def test_the_page_never_redirects_to_a_page(serve, running, health_path):
    """An instance whose port is this page's own, or another gateway's page, is not taken for the service."""
    other = running(Page(("127.0.0.1", 0), lambda: ()))
    instances = []
    ask = serve(PageService("loop", instances, health_path=health_path))
    instances += [Instance("self", *ask.address), Instance("other", *other.address)]
    assert ask("/loop/").status == 503


def test_a_distance_that_says_nothing_is_not_shown():
    """Where only the default way leads there is no path to tell of."""
    text = render("x", [PageService("a", (Instance("n1", "10.0.0.1", 1, 1e6), Instance("n2", "10.0.0.2", 1, 3.0)))])
    assert "1e+06" not in text and text.count("distance") == 1 and "distance 3" in text
