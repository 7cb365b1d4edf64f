# Cuts the shared-memory connections of a process: cut.py PID. It takes duplicates of the process's
# connected sockets and shuts them down, as a network does that fails; neither end is asked.
import ctypes
import errno
import os
import socket
import sys

PIDFD_GETFD = 438

pid = int(sys.argv[1])
process = os.pidfd_open(pid)
libc = ctypes.CDLL(None, use_errno=True)
cut = 0
for name in os.listdir(f"/proc/{pid}/fd"):
    try:
        if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
            continue
    except FileNotFoundError:
        continue  # closed meanwhile
    duplicate = libc.syscall(PIDFD_GETFD, process, int(name), 0)
    if duplicate < 0 and ctypes.get_errno() == errno.EBADF:
        continue
    if duplicate < 0:
        error = ctypes.get_errno()
        sys.exit(f"no duplicate of descriptor {name}: {os.strerror(error)}")
    with socket.socket(fileno=duplicate) as end:
        # Only the fabric uses this type. A listener is no connection.
        if end.family != socket.AF_UNIX or end.type != socket.SOCK_SEQPACKET:
            continue
        if end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            continue
        end.shutdown(socket.SHUT_RDWR)
        cut += 1
print(cut)
