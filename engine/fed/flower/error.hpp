#pragma once
/// What can go wrong between a node and its SuperLink. The library knows nothing else of mcit, so these are
/// its own.

#include <stdexcept>
#include <string>

#define MCIT_FLOWER_EXPORT __attribute__((visibility("default")))

namespace mcit::flower {

/// "where: what", ready to be shown.
class MCIT_FLOWER_EXPORT Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  ~Failure() override;
};

/// The SuperLink could not be reached, or it will be able to answer later: worth another try.
class MCIT_FLOWER_EXPORT Unreachable final : public Failure {
 public:
  using Failure::Failure;
  ~Unreachable() override;
};

/// The SuperLink has refused a call.
class MCIT_FLOWER_EXPORT Refused final : public Failure {
 public:
  Refused(const std::string& text, long http_status, int api_code)
      : Failure(text), status(http_status), code(api_code) {}
  ~Refused() override;
  long status;  ///< of HTTP
  int code;     ///< Flower's own, 0 where it gave none
};

}  // namespace mcit::flower
