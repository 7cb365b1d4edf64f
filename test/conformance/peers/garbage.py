"""Connects to the listener at argv[1] in every wrong way; the listener must outlive them all."""

import os
import socket
import struct
import sys


def connected():
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.connect(sys.argv[1])  # blocks while the backlog is full
    peer.settimeout(2)
    return peer


def send(*messages, fds=()):
    peer = connected()
    try:
        for message in messages:
            socket.send_fds(peer, [message], list(fds))
    except (BrokenPipeError, ConnectionResetError):
        pass  # dropped already, which is what this asks for
    return peer


memory = os.memfd_create("unsealed")
os.ftruncate(memory, 1 << 20)
null = os.open("/dev/null", os.O_RDWR)
folder = os.open("/", os.O_RDONLY)
reading, writing = os.pipe()

peers = [connected()]  # says nothing
send(b"").close()
for length in (1, 7, 8, 64, 127, 128, 255, 256, 512, 4096, 65536):
    send(b"\x00" * length).close()
    send(b"\xff" * length).close()
    peers.append(send(os.urandom(length)))
    for fds in ([memory], [memory, memory], [null, null], [folder, reading], [memory] * 16):
        peers.append(send(os.urandom(length), fds=fds))
        peers.append(send(struct.pack("<I", 1) + b"\x00" * (length - 1), fds=fds))
for peer in peers:
    peer.close()

stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
try:
    stream.connect(sys.argv[1])
except OSError:
    pass  # EPROTOTYPE
