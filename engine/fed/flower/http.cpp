#include "fed/flower/http.hpp"

#include <curl/curl.h>

#include <array>
#include <chrono>
#include <ctime>
#include <mutex>
#include <nlohmann/json.hpp>

namespace mcit::flower {

namespace {

constexpr std::size_t kLargestAnswer = std::size_t{64} << 20;  // an object is a chunk and its head

struct Pending {
  std::string body;
  bool too_large = false;
};

std::size_t take(char* data, std::size_t, std::size_t count, void* to) {
  auto& pending = *static_cast<Pending*>(to);
  if (pending.body.size() + count > kLargestAnswer) {
    pending.too_large = true;
    return 0;
  }
  try {
    pending.body.append(data, count);
  } catch (...) {
    return 0;
  }
  return count;
}

int watch(void* stop, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto& asked = *static_cast<const std::function<bool()>*>(stop);
  return asked && asked() ? 1 : 0;
}

using Url = std::unique_ptr<CURLU, decltype(&curl_url_cleanup)>;

std::string part_of(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, 0) != CURLUE_OK || text == nullptr) return {};
  const std::string out = text;
  curl_free(text);
  return out;
}

void check_address(const std::string& address) {
  const Url url(curl_url(), curl_url_cleanup);
  if (!url || curl_url_set(url.get(), CURLUPART_URL, address.c_str(), 0) != CURLUE_OK)
    throw Failure(address + ": not an address; it looks like https://server.example:8000");
  const std::string scheme = part_of(url.get(), CURLUPART_SCHEME), host = part_of(url.get(), CURLUPART_HOST);
  if (scheme == "https") return;
  const bool here = host == "localhost" || host == "127.0.0.1" || host == "[::1]";
  if (scheme != "http" || !here)
    throw Failure(address +
                  ": only https leaves this machine: whoever reads a signed request could send it again; "
                  "http is for 127.0.0.1");
}

}  // namespace

std::string timestamp() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  const auto seconds = static_cast<std::time_t>(micros / 1000000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 64> text{};
  const std::size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  const std::string fraction = std::to_string(1000000 + micros % 1000000);
  return std::string(text.data(), length) + "." + fraction.substr(1) + "+00:00";
}

struct Http::State {
  State(const Address& to, const Key& with) : address(to), key(with), public_key(base64(key.public_pem())) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { curl_easy_cleanup(handle); }

  Address address;
  Key key;
  std::string public_key;
  CURL* handle = nullptr;
  double timeout = 60.0;
  bool answered = false;  ///< once, whatever the answer was
  std::function<bool()> stop;
  std::array<char, CURL_ERROR_SIZE> error{};
};

Http::Http(const Address& address, const Key& key) : state_(std::make_unique<State>(address, key)) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  while (state_->address.url.ends_with('/')) state_->address.url.pop_back();
  check_address(state_->address.url);
  state_->handle = curl_easy_init();
  if (state_->handle == nullptr) throw Failure("libcurl: no handle");
  CURL* curl = state_->handle;
  const auto set_text = [&](CURLoption option, const std::string& text) {
    if (!text.empty()) curl_easy_setopt(curl, option, text.c_str());
  };
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, state_->error.data());
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, watch);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &state_->stop);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 10L);
  curl_easy_setopt(curl, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  set_text(CURLOPT_CAINFO, address.ca_file);
  set_text(CURLOPT_SSLCERT, address.client_cert);
  set_text(CURLOPT_SSLKEY, address.client_key);
}

Http::~Http() = default;
void Http::timeout(double seconds) { state_->timeout = seconds; }
void Http::stop_when(std::function<bool()> stop) { state_->stop = std::move(stop); }

namespace {

/// What a refusal says: Flower's {"code", "detail"}, or nothing that can be read.
[[noreturn]] void refuse(const std::string& where, long status, const std::string& body) {
  const auto answer = nlohmann::json::parse(body, nullptr, false);
  int code = 0;
  std::string detail;
  if (answer.is_object()) {
    if (const auto found = answer.find("code"); found != answer.end() && found->is_number_integer())
      code = found->get<int>();
    if (const auto found = answer.find("detail"); found != answer.end() && found->is_string())
      detail = found->get<std::string>().substr(0, 300);
  }
  const std::string text = where + ": refused with status " + std::to_string(status) +
                           (code != 0 ? ", code " + std::to_string(code) : "") +
                           (detail.empty() ? "" : ": " + detail);
  if (status == 429 || status == 502 || status == 503 || status == 504) throw Unreachable(text);
  throw Refused(text, status, code);
}

/// What may be behind a connection that is cut without a word, before it ever had an answer. A server that
/// takes no client without a certificate says so, but TLS 1.3 lets it say so only after the client's
/// handshake is over, and what it says is lost when it closes before it has read what the client sent
/// meanwhile.
std::string guess(const Address& address) {
  if (address.url.starts_with("http:")) return "; does it want https?";
  return address.client_cert.empty() ? "; does it want a certificate of this client?"
                                     : "; does it take this client's certificate?";
}

/// A call without an answer: trust that another try would not bring is a refusal.
/// @param hint said when the connection was cut
[[noreturn]] void fail(const std::string& url, CURLcode result, const std::string& text,
                       const std::string& hint) {
  const auto says = [&](const char* part) { return text.find(part) != std::string::npos; };
  if (says("wrong version number")) throw Refused(url + ": it does not speak https: " + text, 0, 0);
  if (says("alert") && (says("certificate") || says("unknown ca")))  // TLS 1.3 tells it after the handshake
    throw Refused(url + ": it does not take this client's certificate: " + text, 0, 0);
  if (result == CURLE_PEER_FAILED_VERIFICATION || result == CURLE_SSL_CACERT_BADFILE ||
      result == CURLE_SSL_CERTPROBLEM)
    throw Refused(url + ": " + text, 0, 0);
  const bool cut = result == CURLE_GOT_NOTHING || result == CURLE_RECV_ERROR || result == CURLE_SEND_ERROR ||
                   result == CURLE_SSL_CONNECT_ERROR;
  throw Unreachable(url + ": " + text + (cut ? hint : ""));
}

}  // namespace

std::string Http::post(const std::string& call, const std::string& body) {
  State& s = *state_;
  const std::string url = s.address.url + "/v1/fleet/" + call, now = timestamp();
  Pending answer;
  std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(nullptr, curl_slist_free_all);
  for (const std::string& line :
       {std::string("content-type: application/protobuf"), std::string("accept: application/protobuf"),
        std::string("expect:"), "flwr-public-key: " + s.public_key, "flwr-timestamp: " + now,
        "flwr-signature: " + base64(s.key.sign(now))}) {
    curl_slist* longer = curl_slist_append(headers.get(), line.c_str());
    if (longer == nullptr) throw Failure("libcurl: out of memory");
    (void)headers.release();
    headers.reset(longer);
  }
  curl_easy_setopt(s.handle, CURLOPT_URL, url.c_str());
  curl_easy_setopt(s.handle, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(s.handle, CURLOPT_POSTFIELDS, body.data());
  curl_easy_setopt(s.handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(s.handle, CURLOPT_WRITEDATA, &answer);
  curl_easy_setopt(s.handle, CURLOPT_LOW_SPEED_LIMIT, 1L);  // a slow link is no fault, a silent one is
  curl_easy_setopt(s.handle, CURLOPT_LOW_SPEED_TIME, static_cast<long>(s.timeout));
  s.error[0] = '\0';
  const CURLcode result = curl_easy_perform(s.handle);
  curl_easy_setopt(s.handle, CURLOPT_HTTPHEADER, nullptr);
  if (answer.too_large) throw Failure(url + ": an answer of more than 64 MiB");
  if (result != CURLE_OK)
    fail(url, result, s.error[0] != '\0' ? s.error.data() : curl_easy_strerror(result),
         s.answered ? "" : guess(s.address));
  s.answered = true;
  long status = 0;
  curl_easy_getinfo(s.handle, CURLINFO_RESPONSE_CODE, &status);
  if (status != 200) refuse(url, status, answer.body);
  return std::move(answer.body);
}

}  // namespace mcit::flower
