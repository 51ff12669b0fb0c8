#!/usr/bin/env python3
"""Both ends of a connection through the gate.

    peer.py backend PORT                 answers HTTP requests with a page, and every other line with the same line
    peer.py session PORT FOLDER DEVICE   as the device, whose files are in FOLDER/devices: sends each line of stdin, and
                                         prints the answer, or "closed" if the gate has closed the connection
"""

import contextlib
import socket
import ssl
import sys
import threading


def serve(connection):
    with contextlib.suppress(ConnectionError), connection, connection.makefile("rwb") as lines:
        for line in lines:
            if line.startswith(b"GET "):
                while lines.readline().strip():
                    pass
                page = b"the web page of the NAS\n"
                lines.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))
                lines.flush()
                connection.shutdown(socket.SHUT_WR)
                return
            lines.write(line)
            lines.flush()


def backend(port):
    with socket.create_server(("127.0.0.1", int(port))) as listener:
        print("ready", flush=True)
        while True:
            threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()


def session(port, folder, device):
    context = ssl.create_default_context(cafile=f"{folder}/pki/server-ca.pem")
    context.load_cert_chain(f"{folder}/devices/{device}.pem", f"{folder}/devices/{device}-key.pem")
    tcp = socket.create_connection(("127.0.0.1", int(port)), timeout=30)
    with context.wrap_socket(tcp, server_hostname="nas.home.example") as tls:
        for line in sys.stdin:
            try:
                tls.sendall(line.encode())
                answer = tls.recv(4096).decode()
            except OSError:
                answer = ""
            print(answer.strip() or "closed", flush=True)


{"backend": backend, "session": session}[sys.argv[1]](*sys.argv[2:])
