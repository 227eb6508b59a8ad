"""
The server side: the public server, its consumer, the pipeline of one request, threads, redelivery, worker processes.

May import: ``errors``, ``context``, ``options``, ``jsonrpc``, ``wire``, ``dialects``, ``amqp``,
``runtime``. Never ``client``.
"""
