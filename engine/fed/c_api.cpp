#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>

#include "core/system.hpp"
#include "fed/round_engine.hpp"
#include "mcit/errors.hpp"
#include "mcit/fed.h"

/// The engine with its lock, and what pointers that were given out point to.
struct mcit_fed {
  std::mutex mutex;
  double (*now)(void*) = nullptr;
  void* context = nullptr;
  std::unique_ptr<mcit::fed::RoundEngine> engine;
  std::vector<std::string> ids;
  std::vector<const char*> pointers;
};

namespace {

using namespace mcit::fed;

thread_local std::string last_error;

int complain(int code, const std::string& text) noexcept {
  try {
    last_error = text;
  } catch (...) {
    last_error.clear();
  }
  return code;
}

/// Runs `body`, which returns a code, and keeps every exception inside.
template <class Body>
int guarded(const Body& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return complain(MCIT_FED_FAILED, "out of memory");
  } catch (const LedgerInUse& error) {
    return complain(MCIT_FED_BUSY, error.what());
  } catch (const std::exception& error) {
    return complain(MCIT_FED_FAILED, error.what());
  } catch (...) {
    return complain(MCIT_FED_FAILED, "an unknown exception");
  }
}

template <class Struct>
bool fits(const Struct* out) {
  return out != nullptr && out->size == sizeof(Struct);
}

int misfit(const char* what) {
  return complain(MCIT_FED_BAD_ARGUMENT,
                  std::string(what) + ": null, or its size is not that of this library");
}

template <std::size_t N>
void copy_text(const std::string& text, char (&target)[N]) {
  std::size_t length = std::min(text.size(), N - 1);
  while (length > 0 && length < text.size() && (static_cast<unsigned char>(text[length]) & 0xc0U) == 0x80U)
    --length;  // not inside of a character
  std::memcpy(target, text.data(), length);
  std::memset(target + length, 0, N - length);
}

int copy_out(const std::string& bytes, void* buffer, std::size_t capacity, std::size_t* needed) {
  *needed = bytes.size();
  if (buffer == nullptr) return MCIT_FED_OK;
  if (capacity < bytes.size())
    return complain(MCIT_FED_TOO_SMALL, "the buffer has " + std::to_string(capacity) + " bytes, " +
                                            std::to_string(bytes.size()) + " are needed");
  std::memcpy(buffer, bytes.data(), bytes.size());
  return MCIT_FED_OK;
}

std::uint32_t count(std::size_t n) { return static_cast<std::uint32_t>(n); }

}  // namespace

uint32_t mcit_fed_abi(void) { return MCIT_FED_ABI; }
const char* mcit_fed_error(void) { return last_error.c_str(); }

int mcit_fed_open(const char* toml, const char* ledger, mcit_fed** out) {
  if (toml == nullptr || ledger == nullptr || out == nullptr) return misfit("mcit_fed_open");
  *out = nullptr;
  return guarded([&] {
    mcit::keep_freed_memory();
    auto fed = std::make_unique<mcit_fed>();
    fed->engine = RoundEngine::open(mcit::Config::parse(toml, "federation settings"), ledger,
                                    [self = fed.get(), steady = steady_clock()] {
                                      return self->now == nullptr ? steady() : self->now(self->context);
                                    });
    *out = fed.release();
    return MCIT_FED_OK;
  });
}

void mcit_fed_free(mcit_fed* fed) { delete fed; }

int mcit_fed_set_clock(mcit_fed* fed, double (*now)(void*), void* context) {
  if (fed == nullptr) return misfit("mcit_fed_set_clock");
  const std::lock_guard lock(fed->mutex);
  fed->now = now;
  fed->context = context;
  return MCIT_FED_OK;
}

int mcit_fed_status(mcit_fed* fed, mcit_fed_state* out) {
  if (fed == nullptr || !fits(out)) return misfit("mcit_fed_status");
  return guarded([&] {
    const std::lock_guard lock(fed->mutex);
    out->phase = static_cast<std::uint32_t>(fed->engine->phase());
    out->round = fed->engine->round();
    out->rounds = static_cast<std::uint32_t>(fed->engine->settings().rounds);
    copy_text(fed->engine->ledger().sha(), out->base);
    copy_text(fed->engine->failure(), out->failure);
    return MCIT_FED_OK;
  });
}

int mcit_fed_begin(mcit_fed* fed, const void* blob, size_t bytes) {
  if (fed == nullptr || blob == nullptr) return misfit("mcit_fed_begin");
  return guarded([&] {
    const std::lock_guard lock(fed->mutex);
    fed->engine->begin(from_blob({static_cast<const char*>(blob), bytes}, "model").arrays);
    return MCIT_FED_OK;
  });
}

int mcit_fed_plan(mcit_fed* fed, const mcit_fed_client* online, size_t count_online, mcit_fed_plan_t* out) {
  if (fed == nullptr || !fits(out) || (online == nullptr && count_online > 0)) return misfit("mcit_fed_plan");
  return guarded([&] {
    std::vector<OnlineClient> clients;
    for (std::size_t i = 0; i < count_online; ++i) {
      if (!fits(&online[i]) || online[i].id == nullptr) return misfit("mcit_fed_plan: online");
      clients.push_back({online[i].id, online[i].examples});
    }
    const std::lock_guard lock(fed->mutex);
    const RoundPlan plan = fed->engine->plan(clients);
    fed->ids = plan.clients;
    fed->pointers.clear();
    for (const std::string& id : fed->ids) fed->pointers.push_back(id.c_str());
    out->round = plan.round;
    out->attempt = plan.attempt;
    out->seconds_left = plan.seconds_left;
    out->clients = fed->pointers.size();
    out->ids = fed->pointers.data();
    copy_text(plan.base, out->base);
    return static_cast<int>(MCIT_FED_OK);
  });
}

int mcit_fed_download(mcit_fed* fed, const char* client, void* buffer, size_t capacity, size_t* needed) {
  if (fed == nullptr || client == nullptr || needed == nullptr) return misfit("mcit_fed_download");
  return guarded([&] {
    const std::lock_guard lock(fed->mutex);
    if (buffer == nullptr) return copy_out(fed->engine->preview(client), nullptr, 0, needed);
    return copy_out(fed->engine->download(client), buffer, capacity, needed);
  });
}

int mcit_fed_offer(mcit_fed* fed, const char* client, uint32_t round, const void* blob, size_t bytes,
                   mcit_fed_verdict* out) {
  if (fed == nullptr || client == nullptr || blob == nullptr || !fits(out)) return misfit("mcit_fed_offer");
  return guarded([&] {
    const std::lock_guard lock(fed->mutex);
    const OfferResult result =
        fed->engine->offer(client, round, std::string(static_cast<const char*>(blob), bytes));
    out->verdict = static_cast<std::uint32_t>(result.verdict);
    copy_text(result.reason, out->reason);
    return MCIT_FED_OK;
  });
}

int mcit_fed_decline(mcit_fed* fed, const char* client, uint32_t round, const char* reason,
                     mcit_fed_verdict* out) {
  if (fed == nullptr || client == nullptr || reason == nullptr || !fits(out))
    return misfit("mcit_fed_decline");
  return guarded([&] {
    const std::lock_guard lock(fed->mutex);
    const OfferResult result = fed->engine->decline(client, round, reason);
    out->verdict = static_cast<std::uint32_t>(result.verdict);
    copy_text(result.reason, out->reason);
    return MCIT_FED_OK;
  });
}

int mcit_fed_close(mcit_fed* fed, mcit_fed_round* out) {
  if (fed == nullptr || !fits(out)) return misfit("mcit_fed_close");
  return guarded([&] {
    const std::lock_guard lock(fed->mutex);
    const CloseResult result = fed->engine->close();
    const mcit::RoundRecord& r = result.record;
    out->outcome = static_cast<std::uint32_t>(result.outcome);
    out->round = static_cast<std::uint32_t>(r.round);
    out->attempts = static_cast<std::uint32_t>(r.attempts);
    out->used = count(r.used.size());
    out->rejected = count(r.rejected.size());
    out->missing = count(r.missing.size());
    out->late = count(r.late.size());
    out->bytes_up = r.bytes_up;
    out->bytes_down = r.bytes_down;
    copy_text(r.before, out->before);
    copy_text(r.after, out->after);
    copy_text(result.reason, out->reason);
    return MCIT_FED_OK;
  });
}

int mcit_fed_record(mcit_fed* fed, uint32_t round, char* buffer, size_t capacity, size_t* needed) {
  if (fed == nullptr || needed == nullptr) return misfit("mcit_fed_record");
  return guarded([&] {
    const std::lock_guard lock(fed->mutex);
    const auto& records = fed->engine->ledger().records();
    if (round >= records.size())
      return complain(MCIT_FED_FAILED, "round " + std::to_string(round) + " is not committed");
    std::string text = mcit::dump_json(mcit::round_to_json(records[round]));
    text.push_back('\0');
    return copy_out(text, buffer, capacity, needed);
  });
}
