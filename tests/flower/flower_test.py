#!/usr/bin/env python3
"""Native nodes against a stock SuperLink: a federation over HTTP ends with the bits of one in a single process, whatever happens.

    flower_test.py CASE TOY_NODE LIBMCIT_FED

F1, F2, ... are those of the table "What is promised under faults" in docs/reference/federated.md.
"""

from __future__ import annotations

import sys

from superlink import PATIENCE, ToyWorld, expect


def faults(toy: str, library: str) -> None:
    """F2 .. F7, F12 and a client that declines, in one federation of eleven clients: each of them hurts nobody else."""
    deadline = 15.0 * PATIENCE  # for eleven nodes on two cores
    with ToyWorld(library, toy, rounds=4, deadline=deadline) as world:
        world.superlink()
        run = world.run(nodes=11)
        world.node("ann")
        # The last round takes a while, so that what comes too late for the one before is still heard.
        world.node("bob", "--fault", "slow", "--round", "4", "--seconds", str(deadline / 2))
        world.node("twice", "--fault", "twice")
        for number, kinds in ((2, ("die", "nan", "missing", "error")), (3, ("slow", "flip", "shape", "stale"))):
            for kind in kinds:
                world.node(kind, "--fault", kind, "--round", str(number), "--seconds", str(deadline))
        expect(len(world.names), 11, "clients")
        last = world.committed(4, 150)
        records = {number: world.record(number) for number in (1, 2, 3, 4)}
        used = {number: [client["client"] for client in record["used"]] for number, record in records.items()}
        rejected = {number: {entry["client"]: entry["reason"] for entry in record["rejected"]} for number, record in records.items()}
        everyone = sorted(world.names)
        expect(used[1], everyone, "used in round 1")
        expect(used[2], [n for n in everyone if n not in ("die", "nan", "missing", "error")], "used in round 2")
        expect(records[2]["missing"], ["die"], "F2: missing in round 2")
        expect(sorted(rejected[2]), ["error", "missing", "nan"], "rejected in round 2")
        for name, reason in (("nan", "router.bias"), ("missing", "router.bias"), ("error", "declines: error: rows: there are none")):
            assert reason in rejected[2][name], f"F5, F6: {name} should be rejected for {reason!r}: {rejected[2]}"
        expect(used[3], [n for n in everyone if n not in ("die", "slow", "flip", "shape", "stale")], "used in round 3")
        expect(sorted(rejected[3]), ["shape"], "rejected in round 3")
        assert "router.bias" in rejected[3]["shape"], f"F6: {rejected[3]}"
        # The dead node is asked again for as long as the SuperLink lists it, two heartbeats: it is missing, or was not in the plan.
        dead = [name for name in ("die",) if name in records[3]["sampled"]]
        expect(records[3]["missing"], [*dead, "flip", "slow", "stale"], "F3, F7, F12: missing in round 3")
        # A chunk that the SuperLink refuses makes its answer wait for three minutes there; the round does not.
        assert records[3]["seconds"] < 60 * PATIENCE, f"F7: round 3 took {records[3]['seconds']} s"
        late = {entry["client"]: entry["reason"] for number in (3, 4) for entry in records[number]["late"]}
        assert "another state" in late["stale"], f"F12: {late}"
        assert "round 3 is over" in late["slow"] or "after the deadline" in late["slow"], f"F3: {late}"
        expect(used[4], [n for n in everyone if n != "die"], "used in round 4")
        expect(last["after"], world.embedded(4), "the state after round 4")
        world.ends(run, "finished:completed")


def restart(toy: str, library: str) -> None:
    """F8: the SuperLink is killed after round 3 and started again; nodes come back by themselves, bits as if nothing had been.
    F11: before that a client is killed and comes back with a new key, while the SuperLink still lists its ghost."""
    with ToyWorld(library, toy, rounds=6) as world:
        server = world.superlink()
        world.run(nodes=3)
        nodes = {name: world.node(name, "--patience", "600") for name in ("ann", "bob", "cat")}
        world.committed(1)
        world.kill(nodes["ann"])
        world.node("ann", "--patience", "600", log="ann-again")
        world.committed(3)
        world.kill(server)
        newest = max(number for number in range(3, 7) if world.record(number))
        before = [world.record(number) for number in range(1, newest + 1)]
        world.superlink()
        run = world.run(nodes=3)
        last = world.committed(6, 200)
        expect([world.record(number) for number in range(1, newest + 1)], before, "records from before the kill")
        expect(last["after"], world.embedded(6), "the state after round 6")
        for number in (5, 6):
            expect([client["client"] for client in world.record(number)["used"]], ["ann", "bob", "cat"], f"used in round {number}")
        world.ends(run, "finished:completed")


def quorum(toy: str, library: str) -> None:
    """F10: one node where two are needed. The run fails and says why; it never ends as if it had succeeded."""
    with ToyWorld(library, toy, quorum=2, deadline=5.0 * PATIENCE, retries=1) as world:
        world.superlink()
        run = world.run(nodes=1)
        world.node("ann")
        world.ends(run, "finished:failed")
        assert "1 usable updates, 2 are needed" in (log := world.flwr("log", run, "here", "--show")), log
        expect(world.record(1), None, "round 1")


CASES = {"faults": faults, "restart": restart, "quorum": quorum}

if __name__ == "__main__":
    CASES[sys.argv[1]](*sys.argv[2:4])
    print("passed")
