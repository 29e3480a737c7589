#!/usr/bin/env python3
"""A client of two processes ends with the bits of `mcit federate` in two; F15: when one of them dies, the server is told and new ones go on.

    group_test.py MCIT LIBMCIT_FED
"""

from __future__ import annotations

import subprocess
import sys
import time

from superlink import PATIENCE, World, expect, free_port, one_client


class Pair:
    """One command as two processes."""

    def __init__(self, world: World, name: str, command: list[str]) -> None:
        port = str(free_port())
        self.world, self.name = world, name
        self.processes = [world.start(f"{name}-{rank}", command, RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                                      MASTER_PORT=port) for rank in range(2)]

    def wait(self, seconds: float) -> list[int]:
        self.world.until(lambda: all(process.poll() is not None for process in self.processes), seconds, f"{self.name} does not end")
        return [process.returncode for process in self.processes]


def main(mcit: str, library: str) -> None:
    with World(library) as world:
        config = world.folder / "fed.toml"
        config.write_text(one_client("pair", 3, 'steps = 150\nbatch = 8\nschedule = "constant"'))
        embedded = world.folder / "embedded"
        federate = Pair(world, "federate", [mcit, "federate", str(config), "--out", str(embedded), "--set", "eval.base=false"])
        expect(federate.wait(120), [0, 0], "mcit federate in two processes")
        subprocess.run([mcit, "node", "init", str(config), "--out", str(world.folder), "--deadline", str(60 * PATIENCE)], check=True,
                       capture_output=True)
        subprocess.run([mcit, "node", "keygen", str(world.folder / "key")], check=True, capture_output=True)
        world.superlink()
        run = world.run(nodes=1)
        node = [mcit, "node", "run", str(config), "--client", "client-01", "--key", str(world.folder / "key"), "--url", world.url,
                "--state", str(world.folder / "client-01")]
        first = Pair(world, "first", node)
        world.committed(1)
        world.until(lambda: "round 2" in world.text_of("first-0"), 60, "the second round does not begin")
        time.sleep(0.3)
        world.kill(first.processes[1])
        world.until(lambda: first.processes[0].poll() is not None, 60, "a node whose other process has ended goes on")
        expect(first.processes[0].returncode, 2, "the exit code of a node whose other process has ended")
        assert "another process has ended" in world.text_of("first-0"), world.text_of("first-0")
        second = Pair(world, "second", node)
        world.same_states(embedded, 3, 120)
        assert world.record(2)["attempts"] > 1, f"F15: {world.record(2)}"
        log = world.flwr("log", run, "here", "--show")
        assert "declines" in log and "another process has ended" in log, log
        world.ends(run, "finished:completed")
        for process in second.processes:
            process.terminate()
        expect(second.wait(60)[0], 0, "the exit code of a node that was told to stop")


if __name__ == "__main__":
    main(*sys.argv[1:3])
    print("passed")
