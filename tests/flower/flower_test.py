#!/usr/bin/env python3
"""Native nodes against a stock SuperLink: a federation over HTTP ends with the bits of one in a single process, whatever happens.

    flower_test.py CASE TOY_NODE LIBMCIT_FED

The cases and what must come of them are the table "What is promised under faults" of docs/reference/federated.md.
"""

from __future__ import annotations

import sys

from superlink import World

NAMES = ("ann", "bob", "cat")


def expect(got, wanted, what: str) -> None:
    assert got == wanted, f"{what}: {got!r}, not {wanted!r}"


def federation(toy: str, library: str, fault: tuple[str, ...] = (), without: tuple[str, ...] = (), **settings) -> dict:
    """Three rounds of three nodes, of which ann has the fault. @return round 2's record"""
    with World(toy, library, **settings) as world:
        world.superlink()
        for name in NAMES:
            world.node(name, *(fault if name == "ann" else ()))
        run = world.run()
        last = world.committed(3, 100)
        expect(last["after"], world.embedded(*without), "the state after round 3")
        world.until(lambda: world.status(run) == "finished:completed", 60, f"the run is {world.status(run)}")
        return world.record(2)


def round_trip(toy: str, library: str) -> None:
    record = federation(toy, library)
    expect([used["client"] for used in record["used"]], list(NAMES), "used in round 2")
    assert record["bytes_up"] > 0 and record["bytes_down"] > 0, record


def dies(toy: str, library: str) -> None:
    record = federation(toy, library, ("--fault", "die", "--round", "2"), ("ann@2", "ann@3"))
    expect(record["missing"], ["ann"], "missing in round 2")


def slow(toy: str, library: str) -> None:
    record = federation(toy, library, ("--fault", "slow", "--round", "3", "--seconds", "20"), ("ann@3",), deadline=12.0)
    expect(record["missing"], [], "missing in round 2")


def twice(toy: str, library: str) -> None:
    record = federation(toy, library, ("--fault", "twice"))
    expect(len(record["used"]), 3, "updates used in round 2")


def rejected(kind: str, reason: str):
    def case(toy: str, library: str) -> None:
        record = federation(toy, library, ("--fault", kind, "--round", "2"), ("ann@2",))
        text = str(record["rejected"])
        assert "ann" in text and reason in text, f"round 2 should reject ann for {reason!r}: {record}"

    return case


def stale(toy: str, library: str) -> None:
    record = federation(toy, library, ("--fault", "stale", "--round", "2"), ("ann@2",))
    expect([used["client"] for used in record["used"]], ["bob", "cat"], "used in round 2")


def error(toy: str, library: str) -> None:
    record = federation(toy, library, ("--fault", "error", "--round", "2"), ("ann@2",))
    expect(record["missing"], ["ann"], "missing in round 2")


def flip(toy: str, library: str) -> None:
    """Every chunk that ann sends has a flipped bit: the SuperLink refuses it, and the deadline holds all the same."""
    record = federation(toy, library, ("--fault", "flip"), tuple(f"ann@{r}" for r in (1, 2, 3)), deadline=12.0)
    expect(record["missing"], ["ann"], "missing in round 2")
    assert record["seconds"] < 40, f"round 2 took {record['seconds']} s: one broken answer held it up"


def restart(toy: str, library: str) -> None:
    """The SuperLink is killed after round 2 of 4 and started again: nodes come back by themselves, bits as if nothing had been."""
    with World(toy, library, rounds=4) as world:
        server = world.superlink()
        for name in NAMES:
            world.node(name, "--patience", "200")
        world.run()
        world.committed(2, 100)
        world.kill(server)
        before = world.record(2)
        world.superlink()
        world.run()
        expect(world.committed(4, 150)["after"], world.embedded(), "the state after round 4")
        expect(world.record(2), before, "the record of round 2")


def quorum(toy: str, library: str) -> None:
    with World(toy, library, quorum=2, deadline=6.0, retries=1) as world:
        world.superlink()
        world.node("ann")
        run = world.run(nodes=1)
        world.until(lambda: world.status(run).startswith("finished"), 120, "the run does not end")
        expect(world.status(run), "finished:failed", "the run")
        assert "usable updates" in world.log_of(run), world.log_of(run)
        expect(world.record(1), None, "round 1")


def rejoin(toy: str, library: str) -> None:
    """ann is killed and comes back with a new key, while the SuperLink still lists her ghost."""
    with World(toy, library, rounds=4, deadline=20.0) as world:
        world.superlink()
        nodes = {name: world.node(name) for name in NAMES}
        world.run()
        world.committed(1, 100)
        world.kill(nodes["ann"])
        world.node("ann", log="ann-again")
        world.committed(4, 150)
        used = [[u["client"] for u in world.record(r)["used"]] for r in (3, 4)]
        assert list(NAMES) in used, f"ann did not come back: {used}"
        for names in used:
            expect(len(names), len(set(names)), "a client counts once")


def refused(toy: str, library: str) -> None:
    """A node that is not on a list, and one whose SuperLink is not there, end with one line that says so."""
    with World(toy, library) as world:
        expect(world.node("ann", "--patience", "0").wait(60), 2, "exit code without a SuperLink")
        world.superlink()
        expect(world.node("bob", "--listed").wait(60), 2, "exit code of a node that nobody registered")
        text = (world.folder / "bob.log").read_text()
        assert "activate-node" in text and "2004" in text, text


CASES = {"round_trip": round_trip, "dies": dies, "slow": slow, "twice": twice, "nan": rejected("nan", "router.bias"),
         "missing": rejected("missing", "router.bias"), "shape": rejected("shape", "router.bias"), "stale": stale, "error": error,
         "flip": flip, "restart": restart, "quorum": quorum, "rejoin": rejoin, "refused": refused}

if __name__ == "__main__":
    CASES[sys.argv[1]](*sys.argv[2:4])
    print("passed")
