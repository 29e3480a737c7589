#include "fed/flower/key.hpp"

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <array>

namespace mcit::flower {

struct Key::State {
  EVP_PKEY* pair = nullptr;
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_PKEY_free(pair); }
};

Key::~Key() = default;

namespace {

struct Curve {
  const char* group;  ///< OpenSSL's name
  const char* ssh;    ///< RFC 5656, section 10.1
};
constexpr std::array<Curve, 3> kCurves = {
    {{"prime256v1", "nistp256"}, {"secp384r1", "nistp384"}, {"secp521r1", "nistp521"}}};

const Curve* curve_of(EVP_PKEY* pair) {
  std::array<char, 64> name{};
  std::size_t length = 0;
  if (EVP_PKEY_get_group_name(pair, name.data(), name.size(), &length) != 1) return nullptr;
  for (const Curve& curve : kCurves)
    if (std::string_view(name.data(), length) == curve.group) return &curve;
  return nullptr;
}

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;

template <class Write>
std::string pem(const Write& write) {
  const Bio bio(BIO_new(BIO_s_mem()), BIO_free);
  if (!bio || write(bio.get()) != 1) throw Failure("key: OpenSSL could not write it");
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

/// RFC 4251, section 5: length, big-endian, and the bytes.
std::string ssh_string(std::string_view text) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>((text.size() >> shift) & 0xff);
  return out.append(text);
}

int no_passphrase(char*, int, int, void*) { return -1; }

}  // namespace

Key Key::generate() {
  auto state = std::make_shared<State>();
  state->pair = EVP_EC_gen("P-384");
  if (state->pair == nullptr) throw Failure("key: OpenSSL could not make one");
  return Key(std::move(state));
}

Key Key::from_pem(std::string_view text, const std::string& where) {
  const Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), BIO_free);
  auto state = std::make_shared<State>();
  state->pair = PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr);
  if (state->pair == nullptr)
    throw Failure(
        where +
        ": not a private key in PEM without a passphrase; openssl ecparam -name secp384r1 -genkey makes one");
  if (curve_of(state->pair) == nullptr)
    throw Failure(where +
                  ": Flower takes keys on the curves P-256, P-384 and P-521; openssl ecparam -name secp384r1 "
                  "-genkey makes one");
  return Key(std::move(state));
}

std::string Key::private_pem() const {
  return pem([&](BIO* bio) {
    return PEM_write_bio_PKCS8PrivateKey(bio, state_->pair, nullptr, nullptr, 0, nullptr, nullptr);
  });
}

std::string Key::public_pem() const {
  return pem([&](BIO* bio) { return PEM_write_bio_PUBKEY(bio, state_->pair); });
}

std::string Key::public_ssh(const std::string& comment) const {
  std::array<unsigned char, 256> point{};
  std::size_t length = 0;
  if (EVP_PKEY_get_octet_string_param(state_->pair, OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size(),
                                      &length) != 1)
    throw Failure("key: OpenSSL does not give its public point");
  const std::string curve = curve_of(state_->pair)->ssh, type = "ecdsa-sha2-" + curve;
  const std::string_view bytes(reinterpret_cast<const char*>(point.data()), length);
  return type + " " + base64(ssh_string(type) + ssh_string(curve) + ssh_string(bytes)) +
         (comment.empty() ? "" : " " + comment) + "\n";
}

std::string Key::sign(std::string_view message) const {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  const auto* bytes = reinterpret_cast<const unsigned char*>(message.data());
  std::size_t length = 0;
  std::string out;
  const bool begun = context &&
                     EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, state_->pair) == 1 &&
                     EVP_DigestSign(context.get(), nullptr, &length, bytes, message.size()) == 1;
  out.resize(length);
  if (!begun || EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(out.data()), &length, bytes,
                               message.size()) != 1)
    throw Failure("key: OpenSSL could not sign with it");
  out.resize(length);
  return out;
}

std::string base64(std::string_view bytes) {
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int length =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  out.resize(static_cast<std::size_t>(length));
  return out;
}

}  // namespace mcit::flower
