#!/usr/bin/env python3
"""The fallback: a stock SuperNode whose ClientApp starts `mcit node train` ends with the bits of `mcit federate`.

    fallback_test.py MCIT LIBMCIT_FED
"""

from __future__ import annotations

import subprocess
import sys

from superlink import PATIENCE, World, free_port, one_client


def main(mcit: str, library: str) -> None:
    with World(library) as world:
        config = world.folder / "fed.toml"
        config.write_text(one_client("fallback", 2, "steps = 1\nbatch = 4"))

        def command(*arguments: str) -> None:
            done = subprocess.run([mcit, *arguments], capture_output=True, text=True)
            assert done.returncode == 0, f"mcit {' '.join(arguments)}: {done.stdout}{done.stderr}"

        embedded = world.folder / "embedded"
        command("federate", str(config), "--out", str(embedded), "--set", "eval.base=false")
        command("node", "init", str(config), "--out", str(world.folder), "--deadline", str(120 * PATIENCE))
        world.superlink()
        run = world.run(nodes=1)
        node = {"client": "client-01", "config": config, "state": world.folder / "client-01", "mcit": mcit}
        world.start("supernode", [*world.program("supernode"), "--insecure", "--superlink", f"127.0.0.1:{world.port}", "--port",
                                  str(free_port()), "--node-config", " ".join(f'{key}="{value}"' for key, value in node.items())])
        world.same_states(embedded, 2, 150)
        world.ends(run, "finished:completed")


if __name__ == "__main__":
    main(*sys.argv[1:3])
    print("passed")
