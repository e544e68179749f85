"""The gRPC servers of all programs: who may call, what a request must be, and what a failure looks like.

Every call passes one interceptor, on asyncio and on threads alike: the credential proves a role, the policy says
whether the role may call the method, every request message is checked against the contract's rules, and whatever goes
wrong becomes a status with a reason from the table of errors. `Health/Check` needs no credential; reflection needs any
that the listener accepts.
"""

from kernel.servers.access import AccessPolicy, credential, current_actor
from kernel.servers.aio import AioServer, aio_server, unix_aio_server
from kernel.servers.threads import SyncServer, sync_server
from kernel.tls import TlsFiles

__all__ = [
    "AccessPolicy",
    "AioServer",
    "SyncServer",
    "TlsFiles",
    "aio_server",
    "credential",
    "current_actor",
    "sync_server",
    "unix_aio_server",
]
