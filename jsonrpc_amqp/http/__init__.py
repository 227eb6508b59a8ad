"""
HTTP at either end; the extra ``http``. The command line imports these modules, and no other part of the package does.

    bridge      serves a service by asking a JSON-RPC server over HTTP
    gateway     JSON-RPC over HTTP POST into services, as an ASGI application
    headers     what HTTP headers say about a body, and what of a response is logged
    limits      the gateway's defaults
"""
