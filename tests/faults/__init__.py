"""
Faults, and the proof that nothing is lost and nothing hangs.

Each case breaks something while callers call, and accounts for every call: a result, a typed error, or a failed test.
It has two forms: a short one in every test run, and a full one (``FAULTS=full``, as ``tox -e faults`` has it), which
counts what it does, for docs/guarantees.md.

A case is a test with the marker ``fault``, whose arguments become a line of that document, and the fixture ``case``:

    @pytest.mark.fault("cut", fault="...", bound="...", mechanism="...", full=10, short=1, seconds=10)
    def test_...(case: Case, ...) -> None:
        with census(broker, service), Service(...), Traffic([client]) as traffic:
            for _ in case.rounds():
                ...break something...
                case.within("reconnected", seconds, bound=6, slack=1)
        case.account(traffic)
"""
