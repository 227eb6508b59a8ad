"""
Faults: tests that nothing is lost and no call hangs.

Each case injects a fault while callers call, and accounts for every call: a result, a typed error, or a failed test.
It has two forms: a short one in every test run, and a full one (``FAULTS=full``, set by ``tox -e faults``), whose
counts go into docs/guarantees.md.

A case is a test with the marker ``fault``, whose arguments become a row of that page, and the fixture ``case``:

    @pytest.mark.fault("cut", fault="...", bound="...", mechanism="...", full=10, short=1, seconds=10)
    def test_...(case: Case, ...) -> None:
        servers = Service().servers(broker.url, service)
        with census(broker, durable=queues(service)), servers, make_clients(broker.url, service) as clients:
            with Traffic(clients, targets(service)) as traffic:
                for _ in case.rounds():
                    ...inject the fault...
                    case.within("reconnected", seconds, bound=6, slack=1)
            case.account(traffic)

Each case has clients and servers of all kinds (``ends.CLIENTS``, ``ends.SERVERS``), and counts for each pair of them.
"""
