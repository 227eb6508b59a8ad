"""The gateway's own limits, for the command line, too, which shows them without importing Starlette (pure)."""

from __future__ import annotations

# Bytes. nginx's default for a request body. A service's own limit is larger, since its callers are not on the web.
MAX_SIZE = 1 << 20
# Seconds. The longest wait that a request may ask for: load balancers and people give up earlier.
MAX_WAIT = 300.0
# Requests at a time. Each holds its body in memory, up to MAX_SIZE.
MAX_IN_FLIGHT = 1000
