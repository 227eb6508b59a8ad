"""
Other JSON-RPC libraries on this transport: a module for each, whose library is an extra of the same name.

    pip install 'jsonrpc-amqp[jsonrpclib]'      jsonrpc_amqp.adapters.jsonrpclib
    pip install 'jsonrpc-amqp[tinyrpc]'         jsonrpc_amqp.adapters.tinyrpc
    pip install 'jsonrpc-amqp[pjrpc]'           jsonrpc_amqp.adapters.pjrpc

Clients stand on ``Client.send_raw``, servers on ``Server(dispatcher=...)``. What goes wrong on the way is raised as the
``TransportError`` that it is, by their own calls; what the other side answers is theirs to read.
"""
