"""
From the bus to HTTP, and from HTTP to the bus; the extra ``http``.

    bridge      a service whose requests a JSON-RPC server over HTTP answers
    gateway     JSON-RPC over HTTP POST into services, as an ASGI application
"""
