"""What stands in for Cloudflare's API, as its documentation has it: zones, and the records of one. Changes go to a DNS server.

Arguments: address, certificate, key, DNS server, file of its key, token. Not the real service: it shows what doorward asks for.
"""

import http.server
import json
import ssl
import subprocess
import sys
import urllib.parse

ADDRESS, CERTIFICATE, KEY, SERVER, TSIG, TOKEN = sys.argv[1:]
RECORDS = {}


def update(change):
    script = f"server {SERVER}\nzone home.example\nupdate {change}\nsend\n"
    subprocess.run(["nsupdate", "-k", TSIG], input=script.encode(), check=True)


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Requests are printed once."""

    def answer(self, result, status=200, errors=()):
        body = json.dumps({"success": status == 200, "errors": list(errors), "result": result}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def is_allowed(self):
        given = self.headers.get("Authorization")
        print(self.command, self.path, flush=True)
        if given == f"Bearer {TOKEN}":
            return True
        # Cloudflare does not repeat a token. Another provider might.
        self.answer(None, 403, [{"code": 9109, "message": f"Invalid access token {given}"}])
        return False

    def do_GET(self):
        if not self.is_allowed():
            return
        url = urllib.parse.urlsplit(self.path)
        name = urllib.parse.parse_qs(url.query)["name"][0]
        if url.path == "/client/v4/zones":
            self.answer([{"id": "z1", "name": name}] if name == "home.example" else [])
        else:
            assert url.path == "/client/v4/zones/z1/dns_records", url.path
            found = [{"id": key, **record} for key, record in RECORDS.items() if record["name"] == name]
            self.answer(found)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.is_allowed():
            return
        assert self.path == "/client/v4/zones/z1/dns_records", self.path
        assert body["type"] == "TXT", body
        key = f"r{len(RECORDS)}"
        RECORDS[key] = {"type": "TXT", "name": body["name"], "content": body["content"]}
        update(f"add {body['name']}. 60 TXT {body['content']}")
        self.answer({"id": key})

    def do_DELETE(self):
        if not self.is_allowed():
            return
        record = RECORDS.pop(self.path.removeprefix("/client/v4/zones/z1/dns_records/"))
        update(f"delete {record['name']}. TXT {record['content']}")
        self.answer({"id": "gone"})


server = http.server.ThreadingHTTPServer((ADDRESS, 443), Api)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
