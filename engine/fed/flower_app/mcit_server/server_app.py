"""Carries the bytes between Flower's nodes and libmcit_fed.so, which decides everything: who trains, what counts, what comes of it.

A node says its logical name once (a message "query"), and then gets a model and gives an update (messages "train"). Every
message has a thread of its own, so that an answer that does not come whole holds nobody up.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from . import fed as api

INFO, POLL = 20, 0.5  # a level of logging; seconds
LATE = 30.0  # seconds after the deadline in which an answer is still heard, for the record
LOST = {ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE}  # said by the SuperLink

app = ServerApp()


class Waiting:
    """Answers to messages, each pulled by its own thread until it is here or `seconds` are over."""

    def __init__(self, grid: Grid, seconds: float, arrived) -> None:
        self._grid, self._end, self._arrived = grid, time.monotonic() + seconds, arrived

    def send(self, node: int, kind: str, content: RecordDict, name: str) -> None:
        threading.Thread(target=self._ask, args=(node, kind, content, name), daemon=True).start()

    def _ask(self, node: int, kind: str, content: RecordDict, name: str) -> None:
        ttl = max(1.0, self._end - time.monotonic())
        try:
            (message,) = self._grid.push_messages([Message(content, node, kind, ttl=ttl)])
        except Exception as failure:  # its time may be over before it is there: the client is missing, the round goes on
            return log(INFO, "a message to node %s was not sent: %s", node, failure)
        while time.monotonic() < self._end:
            for answer in self._grid.pull_messages([message]):
                if answer.has_error() and answer.error.code in LOST:  # no word of the client's: it is missing
                    return log(INFO, "node %s gives no answer: %s", node, answer.error.reason)
                return self._arrived(node, name, answer)
            time.sleep(POLL)


class Roster:
    """Logical names of nodes. Who says a name last has it: a client that came back is not its own ghost."""

    def __init__(self, grid: Grid) -> None:
        self._grid, self._asked, self.nodes, self.examples, self._rounds = grid, {}, {}, {}, {}

    def taking_part(self, online: dict[str, int], round_: int) -> dict[str, int]:
        """Without those that have said that they have no rows in this round."""
        return {name: examples for name, examples in online.items() if round_ in self._rounds[name] or not self._rounds[name]}

    def refresh(self) -> dict[str, int]:
        online, now = set(self._grid.get_node_ids()), time.monotonic()
        for node in online:
            if now - self._asked.get(node, -1e9) > 30.0 and node not in self.nodes.values():
                self._asked[node] = now
                Waiting(self._grid, 30.0, self._named).send(node, "query", RecordDict(), "")
        return {name: self.examples[name] for name, node in sorted(self.nodes.items()) if node in online}

    def _named(self, node: int, _: str, answer: Message) -> None:
        if answer.has_error() or "who" not in answer.content.config_records:
            return
        who = answer.content.config_records["who"]
        name = str(who.get("client", ""))
        if self.nodes.get(name) != node:
            log(INFO, "node %s is client %s", node, name)
        self._rounds[name] = {int(number) for number in str(who.get("rounds", "")).split(",") if number}
        self.examples[name], self.nodes[name] = int(who.get("examples", 0)), node


def wait_for(roster: Roster, least: int, patience: float) -> dict[str, int]:
    end = time.monotonic() + patience
    while len(online := roster.refresh()) < least:
        if time.monotonic() > end:
            raise RuntimeError(f"only {len(online)} of {least} clients are here after {patience:g} s; see run-config 'patience'")
        time.sleep(POLL)
    return online


def run_attempt(grid: Grid, fed: api.Fed, roster: Roster, online: dict[str, int], accepted: set[tuple[int, str]]) -> api.Round:
    """One plan, its messages and answers, until the engine says that the attempt is over."""
    plan, names = fed.plan(online)
    number, sent = plan.round, set()

    def arrived(_: int, name: str, answer: Message) -> None:
        if answer.has_error():
            verdict = fed.decline(name, number, answer.error.reason)
        else:
            arrays = [array for record in answer.content.array_records.values() for array in record.values()]
            verdict = fed.offer(name, number, arrays[0].data if arrays else b"")
        if verdict.verdict == 0:
            accepted.add((number, name))
        log(INFO, "round %d, %s: %s %s", number, name, api.VERDICTS[verdict.verdict], verdict.reason.decode(errors="replace"))

    waiting = Waiting(grid, plan.seconds_left + LATE, arrived)
    while True:
        for name in names:
            if name in roster.nodes and name not in sent and (number, name) not in accepted:
                sent.add(name)
                blob = fed.download(name)
                array = Array("uint8", (len(blob),), "safetensors", blob)
                waiting.send(roster.nodes[name], "train", RecordDict({"model": ArrayRecord({"blob": array})}), name)
        done = fed.close()
        if done.outcome != 0:
            return done
        time.sleep(POLL)


def opened(library: str, settings: str, ledger: str, patience: float) -> api.Fed:
    """An app that lost its SuperLink may have the ledger for some seconds more."""
    end = time.monotonic() + patience
    while True:
        try:
            return api.Fed(library, settings, ledger)
        except api.Busy as busy:
            if time.monotonic() > end:
                raise
            log(INFO, "%s; trying again", busy)
            time.sleep(2.0)


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    fed = opened(str(config["library"]), Path(str(config["settings"])).read_text(), str(config["ledger"]), float(config["patience"]))
    if fed.status().phase == api.NEEDS_MODEL:
        fed.begin(Path(str(config["model"])).read_bytes())
    roster, accepted, least = Roster(grid), set(), int(config["nodes"])
    while (state := fed.status()).phase != api.FINISHED:
        if state.phase == api.ENDED_IN_FAILURE:
            raise RuntimeError(f"the federation has failed: {state.failure.decode(errors='replace')}")
        online = roster.taking_part(wait_for(roster, least, float(config["patience"])), state.round)
        least = 1
        done = run_attempt(grid, fed, roster, online, accepted)
        log(INFO, "round %d: %d used, %d rejected, %d missing, %d late %s", done.round, done.used, done.rejected, done.missing,
            done.late, done.reason.decode(errors="replace"))
    log(INFO, "all %d rounds are done; the state is %s", state.rounds, state.base.decode())
