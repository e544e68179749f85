"""How a command reaches a stack: finds its home, reads addresses and the user's token, opens channels when needed.

Nothing is dialled before the first call, so `connect` itself fails only for what the home's files say.
"""

import getpass
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from ctl.errors import CtlError, ExitCode, from_trace_error
from ctl.home import Endpoints, Home, read_endpoints
from ctl.unanswered import NameWhoIsSilent
from kernel.channels import sync_channel
from kernel.credentials import Actor, CredentialError, Role, read_token
from kernel.errors import from_rpc_error
from traceapi.control.v1.dag_service_pb2_grpc import DagServiceStub
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceStub
from traceapi.control.v1.queue_service_pb2_grpc import QueueServiceStub
from traceapi.control.v1.retention_service_pb2_grpc import RetentionServiceStub
from traceapi.control.v1.source_service_pb2_grpc import SourceServiceStub
from traceapi.control.v1.task_service_pb2_grpc import TaskServiceStub
from traceapi.query.v1.query_service_pb2_grpc import QueryServiceStub
from traceapi.wrapper.v1.wrapper_service_pb2_grpc import WrapperServiceStub

CALL_SECONDS = 30.0
"""Deadline of a call that is answered at once."""


class Connection:
    """The services of one stack. Close it, or use it in a `with`."""

    def __init__(self, home: Home, endpoints: Endpoints, token: str) -> None:
        self.home = home
        self.endpoints = endpoints
        self._token = token
        self._channels: dict[tuple[str, str], grpc.Channel] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            channel.close()

    @property
    def dags(self) -> DagServiceStub:
        return DagServiceStub(self._channel("the dispatcher", self.endpoints.control))

    @property
    def tasks(self) -> TaskServiceStub:
        return TaskServiceStub(self._channel("the dispatcher", self.endpoints.control))

    @property
    def sources(self) -> SourceServiceStub:
        return SourceServiceStub(self._channel("the dispatcher", self.endpoints.control))

    @property
    def datasets(self) -> DatasetServiceStub:
        return DatasetServiceStub(self._channel("the dispatcher", self.endpoints.control))

    @property
    def queues(self) -> QueueServiceStub:
        return QueueServiceStub(self._channel("the dispatcher", self.endpoints.control))

    @property
    def retention(self) -> RetentionServiceStub:
        return RetentionServiceStub(self._channel("the dispatcher", self.endpoints.control))

    @property
    def queries(self) -> QueryServiceStub:
        return QueryServiceStub(self._channel("queryd", self.endpoints.query))

    def wrapper(self, address: str) -> WrapperServiceStub:
        return WrapperServiceStub(self._channel("the wrapper", address))

    @contextmanager
    def errors(self, where: str = "", remedies: Mapping[int, str] | None = None) -> Iterator[None]:
        """Turns a failed call into what a person reads. `where` says what the calls are about; `remedies`, by reason,
        what helps here and not elsewhere."""
        try:
            yield
        except grpc.RpcError as error:
            found = from_rpc_error(error)
            remedy = (remedies or {}).get(found.reason, "")
            raise from_trace_error(found, where=where, remedy=remedy, home_option=self.home.option()) from error

    def _channel(self, program: str, address: str) -> grpc.Channel:
        if (program, address) not in self._channels:
            try:
                channel = sync_channel(address, token=self._token, actor_name=_actor_name(), tls=self.endpoints.tls)
            except (ValueError, OSError) as error:  # of the address; of the authority's file
                fault = f"cannot read {error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
                raise CtlError(
                    fault,
                    where=str(self.home.endpoints_file),
                    remedy=f"correct the address of {program} there, or its `tls`",
                    exit_code=ExitCode.UNREACHABLE,
                ) from error
            self._channels[program, address] = grpc.intercept_channel(channel, NameWhoIsSilent(program, address))
        return self._channels[program, address]


def connect(home: Path) -> Connection:
    """The stack of a home. Raises CtlError when none runs there, or its credential cannot be read."""
    found = Home.at(home)
    endpoints = read_endpoints(found)
    try:
        token = read_token(endpoints.user_token_file)
    except CredentialError as error:
        raise CtlError(
            str(error),
            remedy="run tracectl as the user who started the stack",
            exit_code=ExitCode.UNREACHABLE,
        ) from error
    return Connection(found, endpoints, token)


def _actor_name() -> str:
    """Under which name mutations are recorded: the user's, where it is one that the contract takes."""
    try:
        return str(Actor(Role.USER, getpass.getuser()).name)
    except (KeyError, OSError, ValueError):
        return "local"
