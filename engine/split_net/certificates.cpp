#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <functional>
#include <memory>

#include "mcit/errors.hpp"
#include "parts.hpp"

namespace mcit::split::net {
namespace {

using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Memory = std::unique_ptr<BIO, Free<BIO_free>>;
using Number = std::unique_ptr<BIGNUM, Free<BN_free>>;

constexpr long kLife = 3650L * 24 * 3600;  // seconds
constexpr long kSlack = 3600;              // clocks differ

template <class T>
T sure(T pointer) {
  if (!pointer) throw Error("certificates", "OpenSSL cannot make them");
  return pointer;
}

std::string text_of(const std::function<int(BIO*)>& write) {
  const Memory out = sure(Memory(BIO_new(BIO_s_mem())));
  if (write(out.get()) != 1) throw Error("certificates", "OpenSSL cannot write them");
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

void extend(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>> extension(
      sure(X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str())));
  X509_add_ext(certificate, extension.get(), -1);
}

struct Signed {
  Certificate certificate;
  Key key;

  std::string certificate_text() const {
    return text_of([&](BIO* out) { return PEM_write_bio_X509(out, certificate.get()); });
  }
  std::string key_text() const {
    return text_of([&](BIO* out) {
      return PEM_write_bio_PKCS8PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    });
  }
};

/// @param authority null: it signs itself @param usage extended key usage, empty for an authority
Signed make(const std::string& name, const Signed* authority, const std::string& usage,
            const std::string& hosts) {
  Signed out{Certificate(sure(X509_new())), Key(sure(EVP_EC_gen("P-256")))};
  X509* const c = out.certificate.get();
  X509_set_version(c, 2);  // 3
  unsigned char random[16];
  if (RAND_bytes(random, sizeof random) != 1) throw Error("certificates", "there are no random numbers");
  random[0] &= 0x7f;  // positive
  const Number serial(sure(BN_bin2bn(random, sizeof random, nullptr)));
  BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(c));
  X509_gmtime_adj(X509_getm_notBefore(c), -kSlack);
  X509_gmtime_adj(X509_getm_notAfter(c), kLife);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(c), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509* const issuer = authority == nullptr ? c : authority->certificate.get();
  X509_set_issuer_name(c, X509_get_subject_name(issuer));
  X509_set_pubkey(c, out.key.get());
  extend(c, issuer, NID_basic_constraints,
         usage.empty() ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE");
  extend(c, issuer, NID_key_usage,
         usage.empty() ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature");
  if (!usage.empty()) extend(c, issuer, NID_ext_key_usage, usage);
  if (!hosts.empty()) extend(c, issuer, NID_subject_alt_name, hosts);
  extend(c, issuer, NID_subject_key_identifier, "hash");
  extend(c, issuer, NID_authority_key_identifier, "keyid:always");
  if (X509_sign(c, authority == nullptr ? out.key.get() : authority->key.get(), EVP_sha256()) == 0)
    throw Error("certificates", "OpenSSL cannot sign them");
  return out;
}

}  // namespace

std::map<std::string, std::string> certificates(const std::vector<std::string>& hosts,
                                                const std::vector<std::string>& clients) {
  const Signed authority = make("mcit split authority", nullptr, "", "");
  std::map<std::string, std::string> out;
  const auto add = [&](const std::string& name, const Signed& made) {
    out[name + ".pem"] = made.certificate_text();
    out[name + ".key"] = made.key_text();
  };
  add("ca", authority);
  std::string names;
  for (const std::string& host : hosts) {
    if (host.empty() || host.find_first_of(", \t\n") != std::string::npos)
      throw ConfigError("--host", "'" + host + "' is no host");
    const bool number =
        host.find_first_not_of("0123456789.") == std::string::npos || host.find(':') != std::string::npos;
    names += (names.empty() ? "" : ",") + std::string(number ? "IP:" : "DNS:") + host;
  }
  add("server", make("server", &authority, "serverAuth", names));
  for (const std::string& client : clients) add(client, make(client, &authority, "clientAuth", ""));
  return out;
}

}  // namespace mcit::split::net
