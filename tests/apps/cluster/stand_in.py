"""Answers for an API server and for a kubelet, over HTTPS, what the tracer asks them.

A stand-in: it lists and watches services and the pods of one node as the API's conventions say, finds
pods by address, checks the token, and knows nothing else. One command a line on stdin, one answer a
line on stdout:

    listen PORT            begin to answer on 127.0.0.1
    token TEXT             from now on only this token is taken
    put JSON               a pod or a service is there, or has changed
    delete UID             a pod is gone
    hang_up                all watches end
    asked                  how many lists and watches of pods and refusals there were
"""

import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

certificate, key, node = sys.argv[1:]
changed = threading.Condition()


class Kind:
    """Objects of one kind, and what has happened to them."""

    def __init__(self, name):
        self.name, self.objects, self.history = name, {}, []

    def happened(self, what, thing):
        with changed:
            thing["metadata"]["resourceVersion"] = str(len(self.history) + 1)
            self.history.append({"type": what, "object": thing})
            changed.notify_all()


pods, services = Kind("Pod"), Kind("Service")
kinds = {kind.name: kind for kind in (pods, services)}
watches = set()
token = None
counts = {"lists": 0, "watches": 0, "refusals": 0}


def is_here(pod):
    return pod["spec"].get("nodeName") == node


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self.headers.get("Authorization") != f"Bearer {token}":
            counts["refusals"] += 1
            self.reply(401, {"kind": "Status", "apiVersion": "v1", "metadata": {},
                             "status": "Failure", "message": "Unauthorized",
                             "reason": "Unauthorized", "code": 401})
        elif url.path == "/pods":
            counts["lists"] += 1
            self.list(pods, is_here)
        elif url.path == "/api/v1/services":
            if query.get("watch") == "true":
                self.watch(services, int(query["resourceVersion"]))
            else:
                self.list(services)
        elif url.path == "/api/v1/pods" and query.get("fieldSelector") == f"spec.nodeName={node}":
            if query.get("watch") == "true":
                self.watch(pods, int(query["resourceVersion"]), is_here)
            else:
                counts["lists"] += 1
                self.list(pods, is_here)
        elif url.path == "/api/v1/pods" and "status.podIP=" in query.get("fieldSelector", ""):
            address = query["fieldSelector"].split("status.podIP=")[1].split(",")[0]
            self.list(pods, lambda pod: pod["status"].get("podIP") == address)
        else:
            counts["refusals"] += 1
            self.reply(403, {"kind": "Status", "apiVersion": "v1", "metadata": {},
                             "status": "Failure", "message": f"{self.path} is forbidden",
                             "reason": "Forbidden", "code": 403})

    def list(self, kind, wanted=lambda _: True):
        with changed:
            body = {"kind": f"{kind.name}List", "apiVersion": "v1",
                    "metadata": {"resourceVersion": str(len(kind.history))},
                    "items": [thing for thing in kind.objects.values() if wanted(thing)]}
        self.reply(200, body)

    def watch(self, kind, version, wanted=lambda _: True):
        with changed:
            # Whoever sees the count may hang up at once, and means this watch, too.
            watches.add(self)
            counts["watches"] += kind is pods
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        history = kind.history
        while True:
            with changed:
                changed.wait_for(lambda: len(history) > version or self not in watches)
                news, version = history[version:], len(history)
                if self not in watches:
                    break
            for event in news:
                if wanted(event["object"]):
                    line = json.dumps(event).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                    self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def reply(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def listen(port):
    server = ThreadingHTTPServer(("127.0.0.1", port), Answer)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    # Handshakes belong to the threads that answer, not to the one that accepts.
    server.socket = context.wrap_socket(server.socket, server_side=True,
                                        do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


for line in sys.stdin:
    command, _, rest = line.strip().partition(" ")
    said = ""
    if command == "listen":
        said = f" port={listen(int(rest))}"
    elif command == "token":
        token = rest
    elif command == "put":
        thing = json.loads(rest)
        kind, uid = kinds[thing["kind"]], thing["metadata"]["uid"]
        known = kind.objects.get(uid)
        kind.objects[uid] = thing
        kind.happened("MODIFIED" if known else "ADDED", thing)
    elif command == "delete":
        pods.happened("DELETED", pods.objects.pop(rest))
    elif command == "hang_up":
        with changed:
            watches.clear()
            changed.notify_all()
    elif command == "asked":
        said = "".join(f" {name}={count}" for name, count in counts.items())
    else:
        raise SystemExit(f"unknown command {line!r}")
    print(f"ok{said}", flush=True)
