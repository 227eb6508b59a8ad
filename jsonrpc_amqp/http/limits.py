"""The gateway's own limits, for the command line, too, which shows them without importing Starlette (pure)."""

from __future__ import annotations

# Bytes. nginx's default for a request body. A service's own limit is larger, since its callers are not on the web.
MAX_SIZE = 1 << 20
# Seconds. The longest wait that a request may ask for: load balancers and people give up earlier.
MAX_WAIT = 300.0
# Requests at a time. Each holds its body in memory, up to MAX_SIZE.
MAX_IN_FLIGHT = 1000
# For each connection of the HTTP server. Bytes of a request beside its body, and fields in them.
MAX_HEAD = 1 << 16
MAX_HEADERS = 200
# Seconds without progress: of a head that comes, of a response that is read.
PATIENCE = 10.0
