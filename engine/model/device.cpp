#include "model/device.hpp"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include "mcit/errors.hpp"

namespace mcit {

at::Device open_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  if (name != "cuda" && !name.starts_with("cuda:"))
    throw ConfigError("device", "unknown device '" + name + "'", "known: cpu, cuda, cuda:N");
  // The CUDA half of LibTorch registers itself when it is opened; nothing here links it. LibTorch remembers
  // what it finds when it is first asked for CUDA, so that is only asked afterwards.
  if (::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr)
    throw ConfigError("device", "'" + name + "' was asked for, but LibTorch's CUDA library cannot be opened",
                      std::string(::dlerror()) + "; use device = \"cpu\"");
  if (!at::globalContext().hasCUDA() || at::getNumGPUs() == 0)
    throw ConfigError("device", "'" + name + "' was asked for, but there is no CUDA device",
                      "use device = \"cpu\"");
  const std::string number = name == "cuda" ? "0" : name.substr(5);
  const auto count = static_cast<long>(at::getNumGPUs());
  if (number.empty() || number.size() > 3 || number.find_first_not_of("0123456789") != std::string::npos ||
      std::stol(number) >= count)
    throw ConfigError("device", "there is no '" + name + "'",
                      "this machine has cuda:0" + (count > 1 ? " to cuda:" + std::to_string(count - 1) : ""));
  // Float32 asked for is float32 computed: cuDNN would round a patch embedding's inputs to 10 bits.
  at::globalContext().setAllowTF32CuDNN(false);
  return at::Device("cuda:" + number);
}

void finish_work(at::Device device) {
  if (!device.is_cpu()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

double peak_device_mb(at::Device device) {
  if (device.is_cpu()) return 0.0;
  using c10::CachingAllocator::StatType;
  const auto stats = at::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  return static_cast<double>(stats.allocated_bytes[static_cast<std::size_t>(StatType::AGGREGATE)].peak) /
         (1 << 20);
}

at::ScalarType dtype_named(const std::string& name) {
  if (name == "float16") return at::kHalf;
  if (name == "bfloat16") return at::kBFloat16;
  if (name != "float32")
    throw ConfigError("dtype", "unknown type '" + name + "'", "known: float32, float16, bfloat16");
  return at::kFloat;
}

at::ScalarType default_dtype(at::Device device, const std::string& stored) {
  return device.is_cuda() && stored != "float32" ? at::kBFloat16 : at::kFloat;
}

}  // namespace mcit
