"""A server on localhost that speaks the part of Hetzner Cloud's documented API that we use.

Servers are created in two actions that finish after being asked for; labels can be selected by;
failures can be queued. It keeps what it was sent, so that tests can look for secrets in it.
"""

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

KINDS = ("servers", "networks", "firewalls", "ssh_keys")
LOCATION = {"id": 1, "name": "fsn1", "description": "Falkenstein", "country": "DE",
            "city": "Falkenstein", "latitude": 50.4, "longitude": 12.3,
            "network_zone": "eu-central"}  # fmt: skip
TYPE = {"id": 1, "name": "cx43", "description": "CX43", "cores": 8, "memory": 16.0, "disk": 160,
        "deprecated": False, "prices": [], "storage_type": "local", "cpu_type": "shared",
        "architecture": "x86"}  # fmt: skip


def price(net):
    return {"location": "fsn1", "price_hourly": {"net": net, "gross": net},
            "price_monthly": {"net": "1", "gross": "1"}}  # fmt: skip


PRICING = {
    "currency": "EUR", "vat_rate": "0.0",
    "server_types": [{"id": 1, "name": "cx43", "prices": [price("0.0200000000")]}],
    "primary_ips": [{"type": "ipv4", "prices": [price("0.0010000000")]}],
}  # fmt: skip


class FakeHetzner:
    """`things[kind][id]`; `fail` holds (method, path, status, code) to answer once each."""

    def __init__(self, addresses):
        self.addresses = list(addresses)
        self.things = {kind: {} for kind in KINDS}
        self.actions = {}
        self.fail = []
        self.broken_actions = 0
        self.requests = []
        self.number = 100
        self.lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_words):
                pass

            def do_GET(self):
                self.answer("GET")

            def do_POST(self):
                self.answer("POST")

            def do_DELETE(self):
                self.answer("DELETE")

            def answer(self, method):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                url = urlparse(self.path)
                with owner.lock:
                    owner.requests.append((method, url.path, body))
                    if self.headers.get("Authorization") != "Bearer right":
                        status, content = 401, error("unauthorized")
                    else:
                        status, content = owner.answer(method, url, body)
                text = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_error):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def names(self, kind="servers"):
        return sorted(thing["name"] for thing in self.things[kind].values())

    def put(self, kind, name, labels):
        """Something that was there before."""
        return self._create(kind, {"name": name, "labels": labels, "networks": []})

    def answer(self, method, url, body):  # noqa: PLR0911  (an answer per kind of request)
        for queued in self.fail:
            if queued[:2] == (method, url.path):
                self.fail.remove(queued)
                return queued[2], error(queued[3])
        words = url.path.removeprefix("/v1/").split("/")
        if words[0] == "pricing":
            return 200, {"pricing": PRICING}
        if words[0] == "server_types":
            wanted = parse_qs(url.query).get("name", ["cx43"])[0]
            return 200, {"server_types": [TYPE] if wanted == "cx43" else [], "meta": meta()}
        if words[0] == "actions":
            return 200, {"action": self._action(int(words[1]))} if len(words) > 1 else self._all()
        kind = words[0]
        if kind not in KINDS:
            return 404, error("not_found")
        if method == "POST":
            return 201, self._created(kind, body)
        if len(words) == 1:
            return 200, {kind: self._listed(kind, parse_qs(url.query)), "meta": meta()}
        thing = self.things[kind].get(int(words[1]))
        if thing is None:
            return 404, error("not_found")
        if method == "DELETE":
            del self.things[kind][thing["id"]]
            return 200, {"action": self._new_action("delete_server")} if kind == "servers" else {}
        return 200, {kind[:-1]: thing}

    def _listed(self, kind, query):
        found = list(self.things[kind].values())
        if "name" in query:
            found = [thing for thing in found if thing["name"] == query["name"][0]]
        for pair in filter(None, query.get("label_selector", [""])[0].split(",")):
            key, value = pair.split("=")
            found = [thing for thing in found if thing["labels"].get(key) == value]
        return found

    def _created(self, kind, body):
        thing = self._create(kind, body)
        if kind != "servers":
            return {kind[:-1]: thing} | ({"actions": []} if kind == "firewalls" else {})
        broken = self.broken_actions > 0
        self.broken_actions -= broken
        return {
            "server": thing,
            "action": self._new_action("create_server"),
            "next_actions": [self._new_action("start_server", broken)],
            "root_password": None,
        }

    def _create(self, kind, body):
        self.number += 1
        thing = {"id": self.number, "name": body["name"], "labels": body.get("labels", {}),
                 "created": datetime.now(UTC).isoformat()}  # fmt: skip
        if kind == "servers":
            address = self.addresses[len(self.things["servers"]) % len(self.addresses)]
            thing |= {
                "status": "running", "server_type": TYPE,
                "public_net": {"ipv4": {"id": 1, "ip": address, "blocked": False, "dns_ptr": ""},
                               "ipv6": None, "floating_ips": [], "firewalls": []},
                "private_net": [{"network": net, "ip": address, "alias_ips": [],
                                 "mac_address": "86:00:00:00:00:01"} for net in body["networks"]],
            }  # fmt: skip
        self.things[kind][self.number] = thing
        return thing

    def _new_action(self, command, broken=False):
        self.number += 1
        self.actions[self.number] = {
            "id": self.number, "command": command, "status": "running", "progress": 0,
            "started": datetime.now(UTC).isoformat(), "finished": None, "resources": [],
            "error": None, "broken": broken,
        }  # fmt: skip
        return self._shown(self.number)

    def _action(self, number):
        """Asked for again it has finished."""
        action = self.actions[number]
        action["status"] = "error" if action["broken"] else "success"
        if action["broken"]:
            action["error"] = {"code": "resource_unavailable", "message": "no room in fsn1"}
        return self._shown(number)

    def _all(self):
        return {"actions": [self._action(number) for number in self.actions], "meta": meta()}

    def _shown(self, number):
        return {key: value for key, value in self.actions[number].items() if key != "broken"}


def error(code):
    return {"error": {"code": code, "message": code.replace("_", " "), "details": {}}}


def meta():
    return {"pagination": {"page": 1, "per_page": 25, "previous_page": None, "next_page": None,
                           "last_page": 1, "total_entries": 1}}  # fmt: skip
