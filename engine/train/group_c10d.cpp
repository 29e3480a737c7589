// Processes meet at LibTorch's TCPStore and exchange numbers through its Gloo, those of GPUs through NCCL.
#define USE_C10D_GLOO
#include <c10/util/Logging.h>
#include <dlfcn.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "core/log.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "train/group.hpp"
#include "train/nccl.hpp"

namespace mcit {
namespace {

using StorePtr = c10::intrusive_ptr<c10d::Store>;

std::string seconds_text(std::chrono::milliseconds time) {
  const auto tenths = time.count() / 100;
  return std::to_string(tenths / 10) + (tenths % 10 == 0 ? "" : "." + std::to_string(tenths % 10)) + " s";
}

bool is_timeout(const std::string& cause) {
  std::string lower = cause;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower.find("timed out") != std::string::npos || lower.find("timeout") != std::string::npos;
}

class C10dChannel final : public Channel {
 public:
  C10dChannel(const Launch& launch, const StorePtr& store, std::chrono::milliseconds timeout)
      : store_(store),
        rank_(static_cast<int>(launch.rank)),
        size_(static_cast<int>(launch.size)),
        where_("rank " + std::to_string(launch.rank) + " of " + std::to_string(launch.size)),
        timeout_(timeout) {
    const auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    options->devices.push_back(device(launch));
    gloo_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank_, size_, options);
  }

  void add_up(Tensor& values) override {
    if (values.is_cuda() && !tried_nccl_) open_nccl(values.device());
    if (values.is_cuda() && nccl_) return reduce(*nccl_, values);
    Tensor here = values.to(at::kCPU);
    reduce(*gloo_, here);
    if (!values.is_cpu()) values.copy_(here);
  }

  void set_timeout(std::chrono::milliseconds timeout) override {
    timeout_ = timeout;
    gloo_->setTimeout(timeout);
    if (nccl_) nccl_->setTimeout(timeout);
  }

 private:
  void reduce(c10d::Backend& by, const Tensor& values) const {
    std::vector<Tensor> list = {values};
    try {
      by.allreduce(list)->wait();
    } catch (const std::exception& e) {
      lost(cause_of(e));
    }
  }

  bool all(bool own) const {
    const Tensor able = at::full({1}, own ? 1 : 0, at::kLong);
    reduce(*gloo_, able);
    return able.item<std::int64_t>() == size_;
  }

  /// All processes use NCCL or none does: gradients then go through main memory.
  void open_nccl(at::Device device) {
    tried_nccl_ = true;
    void* library = ::dlopen("libmcit_nccl.so", RTLD_NOW | RTLD_LOCAL);
    std::string why = library == nullptr ? ::dlerror() : "";
    void* found = library == nullptr ? nullptr : ::dlsym(library, "mcit_open_nccl");
    if (all(found != nullptr)) {  // or some would wait for the others
      try {
        reinterpret_cast<decltype(&mcit_open_nccl)>(found)(
            c10::make_intrusive<c10d::PrefixStore>("nccl", store_), rank_, size_, timeout_, nccl_);
        std::vector<Tensor> one = {at::ones({1}, at::TensorOptions(at::kFloat).device(device))};
        nccl_->allreduce(one)->wait();
        if (one[0].item<float>() != static_cast<float>(size_)) why = "it adds up wrongly";
      } catch (const std::exception& e) {
        why = cause_of(e);
      }
      if (all(why.empty())) return;
    }
    nccl_.reset();
    log::warn("gradients go through main memory, not NCCL: ", why.empty() ? "another process cannot" : why);
  }

  static std::shared_ptr<gloo::transport::Device> device(const Launch& launch) {
    if (const char* interface = std::getenv("GLOO_SOCKET_IFNAME"))
      return c10d::ProcessGroupGloo::createDeviceForInterface(interface);
    if (launch.local_size == launch.size)  // nobody outside of this machine
      return c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1");
    return c10d::ProcessGroupGloo::createDefaultDevice();
  }

  [[noreturn]] void lost(const std::string& cause) const {
    if (interrupted()) throw Interrupted();  // as the others were
    if (is_timeout(cause))
      throw Error(where_, "another process has not answered for " + seconds_text(timeout_),
                  "it hangs, or it needs longer: run.peer_timeout is how long to wait");
    throw Error(where_, "another process has ended", "what it printed says why");
  }

  StorePtr store_;
  int rank_, size_;
  std::string where_;
  std::chrono::milliseconds timeout_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo_;
  c10::intrusive_ptr<c10d::Backend> nccl_;
  bool tried_nccl_ = false;
};

/// The store that all processes of the group see, and no other group.
StorePtr open_store(const Launch& launch, std::chrono::milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = launch.port;
  options.isServer = launch.rank == 0 && !launch.agent_store;
  options.waitWorkers = false;
  options.timeout = timeout;
  try {
    // A restarted group finds what the one before has left in torchrun's store.
    return c10::make_intrusive<c10d::PrefixStore>(
        "mcit/" + std::to_string(launch.restart),
        c10::make_intrusive<c10d::TCPStore>(launch.address, options));
  } catch (const std::exception& e) {
    throw ConfigError("MASTER_ADDR",
                      launch.address + ":" + std::to_string(launch.port) + " cannot be " +
                          (options.isServer ? "opened" : "reached"),
                      cause_of(e));
  }
}

void await_all(const Launch& launch, const StorePtr& store, std::chrono::milliseconds timeout) {
  const auto key = [](std::int64_t rank) { return "here/" + std::to_string(rank); };
  if (store->add(key(launch.rank), 1) > 1)
    throw ConfigError("RANK", "two processes are rank " + std::to_string(launch.rank));
  std::vector<std::string> keys;
  for (std::int64_t rank = 0; rank < launch.size; ++rank) keys.push_back(key(rank));
  try {
    store->wait(keys, timeout);
  } catch (const std::exception&) {
    if (interrupted()) throw Interrupted();
    std::string missing;
    for (std::int64_t rank = 0; rank < launch.size; ++rank)
      if (!store->check({key(rank)})) missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
    throw Error("rank " + std::to_string(launch.rank) + " of " + std::to_string(launch.size),
                "rank " + missing + " did not come within " + seconds_text(timeout),
                "was every process started?");
  }
}

}  // namespace

std::unique_ptr<Group> Group::join(const Launch& launch, std::chrono::milliseconds timeout) {
  if (launch.alone()) return std::make_unique<Group>();
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr)
    FLAGS_caffe2_log_level = c10::GLOG_FATAL;  // what goes wrong is said by the exceptions
  const StorePtr store = open_store(launch, timeout);
  await_all(launch, store, timeout);
  return std::make_unique<Group>(launch.rank, launch.size,
                                 std::make_unique<C10dChannel>(launch, store, timeout));
}

}  // namespace mcit
