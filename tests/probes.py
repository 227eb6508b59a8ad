"""What probes are told, over HTTP and over ASGI."""

from __future__ import annotations

from jsonrpc_amqp import Health

WELL, FAULTY = Health(), Health(("the broker is away",))
DEAD = Health(("stuck",), is_alive=False)


class Subject:
    health = WELL

    def __call__(self) -> Health:
        return self.health


CASES = [
    (WELL, "/livez", 200, {"ready": True, "alive": True, "problems": []}),
    (WELL, "/readyz?verbose", 200, {"ready": True, "alive": True, "problems": []}),
    (FAULTY, "/livez", 200, {"ready": False, "alive": True, "problems": ["the broker is away"]}),
    (FAULTY, "/readyz", 503, {"ready": False, "alive": True, "problems": ["the broker is away"]}),
    (DEAD, "/livez", 503, {"ready": False, "alive": False, "problems": ["stuck"]}),
    (DEAD, "/readyz", 503, {"ready": False, "alive": False, "problems": ["stuck"]}),
    (WELL, "/", 404, {"error": "there are /livez and /readyz"}),
]
