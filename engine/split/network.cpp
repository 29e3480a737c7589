#include "split/network.hpp"

#include <dlfcn.h>

#include "mcit/errors.hpp"

namespace mcit::split {

Transport& transport() {
  static Transport* const opened = [] {
    constexpr const char* kLibrary = "libmcit_split_net.so";
    void* const library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);  // never closed: it has threads
    void* const entry = library == nullptr ? nullptr : ::dlsym(library, kTransportEntry);
    if (entry == nullptr)
      throw ConfigError(
          kLibrary, std::string("cannot be opened: ") + ::dlerror(),
          "install libgrpc++-dev and protobuf-compiler-grpc (./dev setup does) and build again");
    return reinterpret_cast<Transport* (*)()>(entry)();
  }();
  return *opened;
}

}  // namespace mcit::split
