#pragma once
/// Version and visibility: what every header of the contract needs.

#define MCIT_EXPORT __attribute__((visibility("default")))

#define MCIT_STRINGIZE_IMPL(x) #x
#define MCIT_STRINGIZE(x) MCIT_STRINGIZE_IMPL(x)

/// Raised when the meaning of a hook or of the descriptor changes; named in the ELF section
/// `mcit.plugin.<epoch>`.
#define MCIT_PLUGIN_EPOCH 1
#define MCIT_VERSION_MAJOR 0
#define MCIT_VERSION_MINOR 1
#define MCIT_VERSION_PATCH 0
#define MCIT_VERSION                 \
  MCIT_STRINGIZE(MCIT_VERSION_MAJOR) \
  "." MCIT_STRINGIZE(MCIT_VERSION_MINOR) "." MCIT_STRINGIZE(MCIT_VERSION_PATCH)
