#!/usr/bin/env python3
"""F13: who is not to take part is told so, each in words of its own; who is on the list joins.

    refused_test.py MCIT TOY_NODE LIBMCIT_FED
"""

from __future__ import annotations

import subprocess
import sys

from certificates import Proxy, authority, signed
from superlink import ToyWorld, expect


def main(mcit: str, toy: str, library: str) -> None:
    with ToyWorld(library, toy) as world:
        folder = world.certificates = world.folder / "certificates"
        folder.mkdir()
        for name in ("ca", "rogue"):
            authority(folder, name)
        signed(folder, "server", by="ca")
        signed(folder, "client", by="ca")
        signed(folder, "rogue-client", by="rogue")
        key = str(world.folder / "known.key")
        subprocess.run([mcit, "node", "keygen", key], check=True, stdout=subprocess.DEVNULL)
        heard: dict[str, str] = {}

        def refused(name: str, *options: str, url: str = world.url, says: str) -> None:
            process = world.start(name, [toy, "--id", "ann", "--url", url, "--patience", "0", *options])
            expect(process.wait(60), 2, f"exit code: {name}")
            text = heard[name] = world.text_of(name).strip().splitlines()[-1]
            assert says in text, f"{name} should say {says!r}: {text}"

        ca = ("--ca", f"{folder}/ca.pem")
        refused("no SuperLink", *ca, says="Couldn't connect")
        refused("http to another machine", url="http://192.0.2.1:9092", says="only https leaves this machine")
        world.superlink("--enable-supernode-auth")
        refused("plaintext", url=world.url.replace("https", "http"), says="does it want https?")
        refused("wrong CA", "--ca", f"{folder}/rogue.pem", says="certificate")
        refused("registers itself", *ca, says="code 2001")
        refused("unknown key", *ca, "--listed", says="code 2004")

        world.flwr("supernode", "register", f"{key}.pub", "here")
        known = (*ca, "--listed", "--key", key)
        proxy = Proxy(world.port, folder=folder)
        behind = f"https://127.0.0.1:{proxy.port}"
        rogue = (*known, "--cert", f"{folder}/rogue-client.pem", "--cert-key", f"{folder}/rogue-client.key")
        refused("no certificate", *known, url=behind, says="certificate required")
        refused("rogue certificate", *rogue, url=behind, says="does not take this client's certificate")
        curt = f"https://127.0.0.1:{Proxy(world.port, folder=folder, curt=True).port}"
        refused("no certificate, no word", *known, url=curt, says="does it want a certificate of this client?")
        refused("rogue certificate, no word", *rogue, url=curt, says="does it take this client's certificate?")
        expect(len(set(heard.values())), len(heard), f"as many texts as faults, of {heard}")

        signed_client = ("--cert", f"{folder}/client.pem", "--cert-key", f"{folder}/client.key")
        for name, options, url in (("direct", known, world.url), ("through the proxy", (*known, *signed_client), behind)):
            process = world.start(name, [toy, "--id", "ann", "--url", url, *options])
            world.until(lambda: "ann is node" in world.text_of(name) or process.poll() is not None, 30, f"{name}: does not join")
            assert process.poll() is None, f"{name}: {world.text_of(name)}"
            process.terminate()
            expect(process.wait(30), 0, f"exit code: {name}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
    print("passed")
