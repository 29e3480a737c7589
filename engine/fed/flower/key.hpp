#pragma once
/// The key pair that a node is known by: ECDSA on P-384, as flwr makes them.

#include <memory>
#include <string>
#include <string_view>

#include "fed/flower/error.hpp"

namespace mcit::flower {

class MCIT_FLOWER_EXPORT Key {
 public:
  static Key generate();
  /// A private key in PEM, without a passphrase, on a NIST curve. @param where what errors call it @throws
  /// Failure
  static Key from_pem(std::string_view pem, const std::string& where);
  Key(const Key&) = default;
  Key& operator=(const Key&) = default;
  ~Key();

  std::string private_pem() const;  ///< PKCS 8
  std::string public_pem() const;   ///< SubjectPublicKeyInfo, what the SuperLink compares
  /// One line as OpenSSH writes it: what `flwr supernode register` reads.
  std::string public_ssh(const std::string& comment) const;
  /// ECDSA over SHA-256 (FIPS 186-5), DER.
  std::string sign(std::string_view message) const;

 private:
  struct State;
  explicit Key(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

MCIT_FLOWER_EXPORT std::string base64(std::string_view bytes);

}  // namespace mcit::flower
