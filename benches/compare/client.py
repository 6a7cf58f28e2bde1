"""The smallest PostgreSQL client that can log in with SCRAM-SHA-256 and run a simple query.

It exists because the benchmark needs thousands of idle connections from one process and may use
nothing beyond the standard library. It is not a driver: no TLS, no extended protocol, text only.
"""

import base64
import functools
import hashlib
import hmac
import os
import socket
import struct


class ServerError(Exception):
    """An ErrorResponse: the SQLSTATE and the primary message."""

    def __init__(self, fields):
        self.sqlstate = fields.get("C", "?????")
        super().__init__(f"{self.sqlstate}: {fields.get('M', 'no message')}")


class Client:
    """One blocking connection over TCP. Raises ServerError, OSError or ValueError."""

    def __init__(self, port, user, password, database, timeout_seconds=20.0):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_seconds)
        try:
            self._log_in(user, password, database)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def query(self, sql):
        """Runs one simple query and returns its rows as tuples of str or None."""
        self._send(b"Q", sql.encode() + b"\0")
        rows, error = [], None
        while True:
            kind, body = self._receive()
            if kind == b"D":
                rows.append(_data_row(body))
            elif kind == b"E":
                error = ServerError(_fields(body))
            elif kind == b"Z":
                if error:
                    raise error
                return rows

    def close(self):
        self._socket.close()

    def _log_in(self, user, password, database):
        pairs = {"user": user, "database": database, "application_name": "compare"}
        body = struct.pack("!I", 196608)
        body += b"".join(f"{key}\0{value}\0".encode() for key, value in pairs.items()) + b"\0"
        self._socket.sendall(struct.pack("!I", len(body) + 4) + body)
        scram = None
        while True:
            kind, body = self._receive()
            if kind == b"E":
                raise ServerError(_fields(body))
            if kind == b"Z":
                return
            if kind != b"R":
                continue
            (request,) = struct.unpack_from("!I", body)
            if request == 10:
                if b"SCRAM-SHA-256" not in body[4:].split(b"\0"):
                    raise ValueError("the server offers no SCRAM-SHA-256")
                scram = Scram(password)
                first = scram.client_first()
                self._send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first)
            elif request == 11 and scram:
                self._send(b"p", scram.client_final(body[4:]))
            elif request == 12 and scram:
                scram.verify(body[4:])
            elif request != 0:
                raise ValueError(f"authentication request {request} is not supported here")

    def _send(self, kind, body):
        self._socket.sendall(kind + struct.pack("!I", len(body) + 4) + body)

    def _receive(self):
        header = self._receive_exactly(5)
        (length,) = struct.unpack_from("!I", header, 1)
        return header[:1], self._receive_exactly(length - 4)

    def _receive_exactly(self, size):
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionError("the server closed the connection")
            data += part
        return data


class Scram:
    """The client's side of one SCRAM-SHA-256 exchange (RFC 5802), without channel binding."""

    def __init__(self, password):
        self._password = password
        self._nonce = base64.b64encode(os.urandom(18)).decode()
        self._expected_signature = b""

    def client_first(self):
        return f"n,,n=,r={self._nonce}".encode()

    def client_final(self, server_first):
        attributes = _attributes(server_first)
        if not attributes["r"].startswith(self._nonce):
            raise ValueError("the server's nonce does not continue ours")
        salted = salted_password(self._password, attributes["s"], int(attributes["i"]))
        without_proof = f"c=biws,r={attributes['r']}"
        message = f"n=,r={self._nonce},{server_first.decode()},{without_proof}".encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        signature = hmac.digest(stored_key, message, "sha256")
        proof = bytes(left ^ right for left, right in zip(client_key, signature))
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self._expected_signature = hmac.digest(server_key, message, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final):
        signature = base64.b64decode(_attributes(server_final)["v"])
        if not hmac.compare_digest(signature, self._expected_signature):
            raise ValueError("the server does not know the password")


@functools.lru_cache(maxsize=64)
def salted_password(password, salt, iterations):
    """Cached, because a server that offers one fixed salt then costs this process one derivation."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), iterations)


def _attributes(message):
    return dict(part.split("=", 1) for part in message.decode().split(","))


def _fields(body):
    return {part[:1].decode(): part[1:].decode(errors="replace") for part in body.split(b"\0") if part}


def _data_row(body):
    (count,) = struct.unpack_from("!H", body)
    offset, values = 2, []
    for _ in range(count):
        (size,) = struct.unpack_from("!i", body, offset)
        offset += 4
        values.append(None if size < 0 else body[offset : offset + size].decode())
        offset += max(size, 0)
    return tuple(values)
