"""
The server side.

``server`` is the public surface. ``consumer`` hears what happens to the connection and starts, drains and stops;
``lifecycle`` is the state that all threads agree on; ``executor`` decides which thread runs a request, with
``work_queue``, ``inline_policy`` and ``redelivery``; ``pipeline`` serves one request (``job``). ``signals``,
``supervisor`` with ``restarts``, and ``worker`` are for whole processes.

May import: ``errors``, ``context``, ``options``, ``jsonrpc``, ``wire``, ``dialects``, ``amqp``, ``runtime``. Never
``client``.
"""
