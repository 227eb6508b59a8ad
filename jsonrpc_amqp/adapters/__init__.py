"""
Other JSON-RPC libraries on this transport: a module for each; its library is an extra of the same name.

    pip install 'jsonrpc-amqp[jsonrpclib]'      jsonrpc_amqp.adapters.jsonrpclib
    pip install 'jsonrpc-amqp[tinyrpc]'         jsonrpc_amqp.adapters.tinyrpc
    pip install 'jsonrpc-amqp[pjrpc]'           jsonrpc_amqp.adapters.pjrpc

Clients use ``Client.send_raw``, servers ``Server(dispatcher=...)``. The library's own calls raise our
``TransportError`` where there is no reply; the library reads replies itself. No other module of the package imports
these.
"""
