"""mcit/fed.h by ctypes. Every struct carries its size, so a library of another layout refuses it."""

from __future__ import annotations

import ctypes as c

BUSY = -4  # another process has the ledger open
COMMITTED, RETRY, FAILED = 1, 2, 3  # mcit_fed_outcome
NEEDS_MODEL, FINISHED, ENDED_IN_FAILURE = 0, 3, 4  # mcit_fed_phase
VERDICTS = ("accepted", "duplicate", "rejected", "stale", "late", "not sampled")


class Client(c.Structure):
    _fields_ = [("size", c.c_uint32), ("id", c.c_char_p), ("examples", c.c_int64)]


class State(c.Structure):
    _fields_ = [("size", c.c_uint32), ("phase", c.c_uint32), ("round", c.c_uint32), ("rounds", c.c_uint32),
                ("base", c.c_char * 65), ("failure", c.c_char * 256)]


class Plan(c.Structure):
    _fields_ = [("size", c.c_uint32), ("round", c.c_uint32), ("attempt", c.c_uint32), ("seconds_left", c.c_double),
                ("clients", c.c_size_t), ("ids", c.POINTER(c.c_char_p)), ("base", c.c_char * 65)]


class Verdict(c.Structure):
    _fields_ = [("size", c.c_uint32), ("verdict", c.c_uint32), ("reason", c.c_char * 256)]


class Round(c.Structure):
    _fields_ = [("size", c.c_uint32), ("outcome", c.c_uint32), ("round", c.c_uint32), ("attempts", c.c_uint32),
                *((name, c.c_uint32) for name in ("used", "rejected", "missing", "late")), ("bytes_up", c.c_uint64),
                ("bytes_down", c.c_uint64), ("before", c.c_char * 65), ("after", c.c_char * 65), ("reason", c.c_char * 256)]


class Busy(RuntimeError):
    """Another process has the ledger open."""


class Fed:
    """One federation; its methods are the functions of the header."""

    def __init__(self, library: str, settings: str, ledger: str) -> None:
        self._lib = c.CDLL(library)
        self._lib.mcit_fed_error.restype = c.c_char_p
        if self._lib.mcit_fed_abi() != 1:
            raise RuntimeError(f"{library}: has another interface than this app; install both from one version of mcit")
        self._handle = c.c_void_p()
        self._call("open", settings.encode(), ledger.encode(), c.byref(self._handle), plain=True)

    def _call(self, name: str, *arguments: object, plain: bool = False) -> None:
        first = () if plain else (self._handle,)
        if (code := getattr(self._lib, f"mcit_fed_{name}")(*first, *arguments)) != 0:
            raise (Busy if code == BUSY else RuntimeError)(f"mcit_fed_{name}: {self._lib.mcit_fed_error().decode(errors='replace')}")

    def _ask(self, name: str, out: c.Structure, *arguments: object) -> c.Structure:
        out.size = c.sizeof(out)
        self._call(name, *arguments, c.byref(out))
        return out

    def status(self) -> State:
        return self._ask("status", State())

    def begin(self, model: bytes) -> None:
        self._call("begin", model, c.c_size_t(len(model)))

    def plan(self, online: dict[str, int]) -> tuple[Plan, list[str]]:
        clients = (Client * len(online))(*(Client(c.sizeof(Client), id.encode(), n) for id, n in online.items()))
        plan = self._ask("plan", Plan(), clients, c.c_size_t(len(online)))
        return plan, [plan.ids[i].decode() for i in range(plan.clients)]

    def download(self, client: str) -> bytes:
        needed = c.c_size_t()
        self._call("download", client.encode(), None, c.c_size_t(0), c.byref(needed))
        blob = c.create_string_buffer(needed.value)
        self._call("download", client.encode(), blob, needed, c.byref(needed))
        return blob.raw

    def offer(self, client: str, round_: int, blob: bytes) -> Verdict:
        return self._ask("offer", Verdict(), client.encode(), c.c_uint32(round_), blob, c.c_size_t(len(blob)))

    def decline(self, client: str, round_: int, reason: str) -> Verdict:
        return self._ask("decline", Verdict(), client.encode(), c.c_uint32(round_), reason.encode())

    def close(self) -> Round:
        return self._ask("close", Round())
