// gRPC tells a client whose certificate was not taken that the connection was closed. A handshake of our own
// hears the server's alert, which says why.
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>

#include "parts.hpp"

namespace mcit::split::net {
namespace {

using Context = std::unique_ptr<SSL_CTX, Free<SSL_CTX_free>>;
using Session = std::unique_ptr<SSL, Free<SSL_free>>;
using Memory = std::unique_ptr<BIO, Free<BIO_free>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Store = std::unique_ptr<X509_STORE, Free<X509_STORE_free>>;
using Check = std::unique_ptr<X509_STORE_CTX, Free<X509_STORE_CTX_free>>;

constexpr int kPatience = 2;  // seconds
constexpr const char* kNoCertificate = "wants a client certificate, and none was given (--cert, --key)";

Memory memory(const std::string& text) {
  return Memory(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

/// A connected socket, or -1.
int connect_to(const std::string& host, const std::string& port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (::getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return -1;
  int socket = -1;
  for (const addrinfo* at = found; at != nullptr && socket < 0; at = at->ai_next) {
    socket = ::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
    if (socket < 0) continue;
    const timeval limit{kPatience, 0};
    ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (::connect(socket, at->ai_addr, at->ai_addrlen) != 0) {
      ::close(socket);
      socket = -1;
    }
  }
  ::freeaddrinfo(found);
  return socket;
}

bool use_own(SSL_CTX* context, const Credentials& credentials) {
  const Memory certificate = memory(credentials.certificate), key = memory(credentials.key);
  const Certificate own(PEM_read_bio_X509(certificate.get(), nullptr, nullptr, nullptr));
  const Key secret(PEM_read_bio_PrivateKey(key.get(), nullptr, nullptr, nullptr));
  return own && secret && SSL_CTX_use_certificate(context, own.get()) == 1 &&
         SSL_CTX_use_PrivateKey(context, secret.get()) == 1;
}

/// What a server with the same authority finds wrong with the client's certificate; empty when nothing is.
std::string fault_of(const Credentials& credentials) {
  const Memory authority_text = memory(credentials.ca), own_text = memory(credentials.certificate);
  const Certificate authority(PEM_read_bio_X509(authority_text.get(), nullptr, nullptr, nullptr)),
      own(PEM_read_bio_X509(own_text.get(), nullptr, nullptr, nullptr));
  const Store store(X509_STORE_new());
  const Check check(X509_STORE_CTX_new());
  if (!authority || !own || !store || !check || X509_STORE_add_cert(store.get(), authority.get()) != 1 ||
      X509_STORE_CTX_init(check.get(), store.get(), own.get(), nullptr) != 1)
    return {};
  X509_STORE_CTX_set_purpose(check.get(), X509_PURPOSE_SSL_CLIENT);
  if (X509_verify_cert(check.get()) == 1) return {};
  const int error = X509_STORE_CTX_get_error(check.get());
  return error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY || error == X509_V_ERR_CERT_SIGNATURE_FAILURE
             ? "another authority has signed it"
             : X509_verify_cert_error_string(error);
}

/// What the newest error of this thread says about a handshake.
Refusal from_alert() {
  const unsigned long code = ERR_peek_last_error();
  const int reason = ERR_GET_REASON(code);
  if (code == 0) return {false, "the connection was closed"};
  switch (reason) {
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
      return {true, kNoCertificate};
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
      return {true, "does not take this client's certificate: another authority has signed it"};
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
      return {true, "does not take this client's certificate: it has expired"};
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
      return {true, "does not take this client's certificate"};
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
      return {true, "does not speak TLS: leave --ca, --cert and --key out, or start it with them"};
    default: {
      const char* text = ERR_reason_error_string(code);
      return {false, text == nullptr ? "the handshake failed" : text};
    }
  }
}

Refusal handshake(SSL* session, const Credentials& credentials) {
  ERR_clear_error();
  if (SSL_connect(session) != 1) {
    const long trust = SSL_get_verify_result(session);
    if (!credentials.ca.empty() && trust != X509_V_OK)
      return {true, std::string("shows a certificate that --ca does not vouch for: ") +
                        X509_verify_cert_error_string(trust)};
    return credentials.ca.empty() ? Refusal{false, "the connection was closed"} : from_alert();
  }
  if (credentials.ca.empty()) return {true, "speaks TLS: give --ca, --cert and --key"};
  // In TLS 1.3 the client is done before the server has looked at its certificate. A server that takes it
  // speaks next; one that does not sends an alert, or, as gRPC does, hangs up without a word.
  char byte = 0;
  ERR_clear_error();
  if (SSL_read(session, &byte, 1) > 0) return {false, "the connection was closed"};
  const Refusal told = from_alert();
  if (told.final) return told;
  if (credentials.certificate.empty()) return {true, kNoCertificate};
  if (const std::string fault = fault_of(credentials); !fault.empty())
    return {true, "does not take this client's certificate: " + fault};
  return {false, told.what};
}

}  // namespace

Refusal why_refused(const JoinOptions& options) {
  const auto [host, port] = host_and_port(options.address);
  const int socket = connect_to(host, port);
  if (socket < 0) return {false, "nobody listens there"};
  const Context context(SSL_CTX_new(TLS_client_method()));
  const Credentials& credentials = options.credentials;
  Refusal out{false, "the connection was closed"};
  bool usable = context != nullptr;
  if (usable && !credentials.ca.empty()) {
    const Memory text = memory(credentials.ca);
    const Certificate authority(PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr));
    usable = authority && X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), authority.get()) == 1;
    if (!usable) out = {true, "cannot be asked: --ca is no PEM certificate"};
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
    if (usable && !credentials.certificate.empty() && !use_own(context.get(), credentials)) {
      usable = false;
      out = {true, "cannot be asked: --cert and --key are no PEM certificate and its key"};
    }
  }
  if (usable) {
    const Session session(SSL_new(context.get()));
    if (!credentials.ca.empty()) {
      X509_VERIFY_PARAM* const wanted = SSL_get0_param(session.get());
      if (X509_VERIFY_PARAM_set1_ip_asc(wanted, host.c_str()) != 1) {
        X509_VERIFY_PARAM_set1_host(wanted, host.c_str(), 0);
        SSL_set_tlsext_host_name(session.get(), host.c_str());
      }
    }
    constexpr unsigned char kHttp2[] = {2, 'h', '2'};
    SSL_set_alpn_protos(session.get(), kHttp2, sizeof kHttp2);
    SSL_set_fd(session.get(), socket);
    out = handshake(session.get(), credentials);
  }
  ::close(socket);
  return out;
}

}  // namespace mcit::split::net
