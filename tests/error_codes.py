"""The exception of each code of an error, by JSON-RPC 2.0, section 5.1, and for codes that it leaves free."""

from jsonrpc_amqp.errors import (
    InternalError,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    ParseError,
    RemoteError,
    ServerError,
)

CLASSES_BY_CODE: list[tuple[int, type[RemoteError]]] = [
    (-32700, ParseError),
    (-32600, InvalidRequest),
    (-32601, MethodNotFound),
    (-32602, InvalidParams),
    (-32603, InternalError),
    (-32000, ServerError),
    (-32099, ServerError),
    (-31999, RemoteError),
    (-32100, RemoteError),
    (7, RemoteError),
    (10**30, RemoteError),
]
