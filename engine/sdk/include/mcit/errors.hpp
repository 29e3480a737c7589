#pragma once
/// One exception type for each thing that can end a run. The text always reads "where: what; hint".

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "mcit/abi.hpp"

namespace mcit {

class MCIT_EXPORT Error : public std::runtime_error {
 public:
  /// @param where file, key, tensor or hook; @param what the fault; @param hint how to mend it (may be empty)
  Error(std::string_view where, std::string_view what, std::string_view hint = {});
  ~Error() override;
};

/// A key, value or flag given by the user.
class MCIT_EXPORT ConfigError final : public Error {
 public:
  using Error::Error;
  ~ConfigError() override;
};

/// Records, images, suites.
class MCIT_EXPORT DataError final : public Error {
 public:
  using Error::Error;
  ~DataError() override;
};

/// Model folders, safetensors, tokenizers, snapshots.
class MCIT_EXPORT CheckpointError final : public Error {
 public:
  using Error::Error;
  ~CheckpointError() override;
};

/// A plugin file that cannot be used.
class MCIT_EXPORT PluginError final : public Error {
 public:
  using Error::Error;
  ~PluginError() override;
};

/// A strategy that failed inside a hook.
class MCIT_EXPORT StrategyError final : public Error {
 public:
  using Error::Error;
  ~StrategyError() override;
};

/// A strategy that cannot work on this kind of backbone.
class MCIT_EXPORT UnsupportedBackbone final : public Error {
 public:
  using Error::Error;
  ~UnsupportedBackbone() override;
};

/// What the exception says, without the stack of frames that LibTorch appends to its own.
MCIT_EXPORT std::string cause_of(const std::exception& thrown);

/// The candidate nearest to `word` by edit distance, or empty when none is near enough to be a slip of the
/// pen.
MCIT_EXPORT std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

/// "did you mean 'x'?" or, with no near name, "known: a, b, c".
MCIT_EXPORT std::string suggestion(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace mcit
