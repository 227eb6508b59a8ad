"""
HTTP at either end; the extra ``http``. The command line imports these modules, and no other part of the package does.

    bridge      serves a service by asking a JSON-RPC server over HTTP
    gateway     JSON-RPC over HTTP POST into services, as an ASGI application
    headers     what HTTP headers say about a body, and what of a response is logged
    http_server the gateway's HTTP server, with limits for each connection
    limits      the gateway's defaults
    outage      holds the bridge's requests back while its HTTP server cannot be reached
    origins     which hosts and origins a browser may call a gateway from
    upstream    the bridge's requests to its HTTP server
"""
