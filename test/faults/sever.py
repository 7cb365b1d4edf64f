"""Cuts the shm connections of a process: shuts their sockets down, which is what the end of a link looks
like to both sides, while both processes live on. Prints how many.

    python3 sever.py PID
"""

import ctypes
import os
import socket
import sys

PIDFD_GETFD = 438  # the same on every architecture; Python has no wrapper

libc = ctypes.CDLL(None, use_errno=True)


def connections(pid: int):
    pidfd = os.pidfd_open(pid)
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if not os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:"):
            continue
        copy = libc.syscall(PIDFD_GETFD, pidfd, int(fd), 0)
        if copy < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        found = socket.socket(fileno=copy)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        # The pipes of the process to its manager are streams.
        if found.type == socket.SOCK_SEQPACKET and not listens:
            yield found


cut = list(connections(int(sys.argv[1])))
for connection in cut:
    connection.shutdown(socket.SHUT_RDWR)
print(len(cut))
