"""A client on a stock SuperNode, for where `mcit node run` cannot speak with the SuperLink. It starts `mcit node train` for every round.

Its node config says which client it is: client="client-01" config="/srv/fed.toml" state="/srv/client-01" mcit="mcit"
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def who(context: Context) -> ConfigRecord:
    return ConfigRecord({"client": str(context.node_config["client"]), "examples": 0})


@app.query()
def query(message: Message, context: Context) -> Message:
    return Message(RecordDict({"who": who(context)}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    node = {key: str(value) for key, value in context.node_config.items()}
    with tempfile.TemporaryDirectory() as folder:
        model, update = Path(folder, "model.safetensors"), Path(folder, "update.safetensors")
        model.write_bytes(message.content.array_records["model"]["blob"].data)
        done = subprocess.run([node.get("mcit", "mcit"), "node", "train", node["config"], "--client", node["client"], "--state",
                               node["state"], "--from", str(model), "--out", str(update)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"mcit ended with {done.returncode}")
        blob = update.read_bytes()
    record = ArrayRecord({"blob": Array("uint8", (len(blob),), "safetensors", blob)})
    return Message(RecordDict({"who": who(context), "update": record}), reply_to=message)
