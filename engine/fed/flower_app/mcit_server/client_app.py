"""Flower wants every app to have one. Clients of mcit are native nodes (`mcit node`), which run no code of the app's."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
@app.query()
def refuse(message: Message, context: Context) -> Message:
    raise RuntimeError("this federation has native clients: start `mcit node`, not flower-supernode")
