#include "fed/privacy.hpp"

#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>

#include "core/random.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {

struct NoiseSource::State {
  std::optional<Rng> seeded;
  std::array<std::uint64_t, 512> words{};  ///< of OpenSSL, taken in bulk
  std::size_t used = 512;

  std::uint64_t next() {
    if (seeded) return seeded->next();
    if (used == words.size()) {
      if (RAND_bytes(reinterpret_cast<unsigned char*>(words.data()), static_cast<int>(sizeof words)) != 1)
        throw Error("noise", "OpenSSL has no random numbers", "is the system's generator seeded?");
      used = 0;
    }
    return words[used++];
  }
};

NoiseSource::NoiseSource(std::unique_ptr<State> state) : state_(std::move(state)) {}
NoiseSource NoiseSource::secure() { return NoiseSource(std::make_unique<State>()); }
NoiseSource::NoiseSource(std::uint64_t seed) : NoiseSource(std::make_unique<State>()) {
  state_->seeded.emplace(seed);
}
NoiseSource::NoiseSource(NoiseSource&&) noexcept = default;
NoiseSource& NoiseSource::operator=(NoiseSource&&) noexcept = default;
NoiseSource::~NoiseSource() = default;

double NoiseSource::normal() {
  if (state_->seeded) return state_->seeded->normal();
  const auto uniform = [&] { return 2.0 * (static_cast<double>(state_->next() >> 11U) * 0x1.0p-53) - 1.0; };
  for (;;) {
    const double u = uniform(), v = uniform(), s = u * u + v * v;
    if (s > 0.0 && s < 1.0) return u * std::sqrt(-2.0 * std::log(s) / s);
  }
}

double privatize(std::map<std::string, std::vector<double>>& update, double clip, double noise_multiplier,
                 NoiseSource& noise) {
  if (!(clip > 0.0) || !(noise_multiplier >= 0.0))
    throw ConfigError("privacy", "clip must be positive and noise_multiplier not negative");
  double sum = 0.0;
  for (const auto& [name, delta] : update)
    for (const double x : delta) sum += x * x;
  const double norm = std::sqrt(sum);
  if (!std::isfinite(norm)) throw Error("privacy", "the update is not finite");
  const double scale = norm > clip ? clip / norm : 1.0;
  for (auto& [name, delta] : update)
    for (double& x : delta) x = scale * x + noise_multiplier * clip * noise.normal();
  return norm;
}

double rdp_sampled_gaussian(double q, double sigma, std::int64_t order) {
  if (order < 2) throw Error("rdp", "the order must be at least 2");
  if (q == 0.0) return 0.0;
  if (!(sigma > 0.0)) return std::numeric_limits<double>::infinity();
  const auto alpha = static_cast<double>(order);
  if (q == 1.0) return alpha / (2.0 * sigma * sigma);
  double most = -std::numeric_limits<double>::infinity();
  std::vector<double> terms;
  for (std::int64_t i = 0; i <= order; ++i) {
    const auto k = static_cast<double>(i);
    const double binomial = std::lgamma(alpha + 1.0) - std::lgamma(k + 1.0) - std::lgamma(alpha - k + 1.0);
    terms.push_back(binomial + (alpha - k) * std::log1p(-q) + k * std::log(q) +
                    (k * k - k) / (2.0 * sigma * sigma));
    most = std::max(most, terms.back());
  }
  double sum = 0.0;
  for (const double term : terms) sum += std::exp(term - most);
  return (most + std::log(sum)) / (alpha - 1.0);
}

PrivacySpent privacy_spent(double q, double sigma, std::int64_t rounds, double delta) {
  if (!(q >= 0.0 && q <= 1.0) || !(delta > 0.0 && delta < 1.0) || rounds < 0)
    throw ConfigError("privacy", "needs a sampling rate in [0, 1], a delta in (0, 1) and no negative rounds");
  constexpr std::int64_t kLargest = 256;
  PrivacySpent best{std::numeric_limits<double>::infinity(), 0};
  if (rounds == 0) return {0.0, 2};
  for (std::int64_t order = 2; order <= kLargest; ++order) {
    const auto alpha = static_cast<double>(order);
    const double rdp = static_cast<double>(rounds) * rdp_sampled_gaussian(q, sigma, order);
    const double epsilon =
        rdp + std::log1p(-1.0 / alpha) - (std::log(delta) + std::log(alpha)) / (alpha - 1.0);
    if (epsilon < best.epsilon) best = {std::max(0.0, epsilon), order};
  }
  return best;
}

std::string privacy_text(const PrivacyReport& r) {
  double squares = 0.0, largest = 0.0;
  for (const double w : r.weights) {
    squares += w * w;
    largest = std::max(largest, w);
  }
  const double together = largest > 0.0 ? r.noise_multiplier * std::sqrt(squares) / largest : 0.0;
  const PrivacySpent server = privacy_spent(1.0, r.noise_multiplier / 2.0, r.participations, r.delta);
  const PrivacySpent model = privacy_spent(r.sampling_rate, together, r.rounds, r.delta);
  const auto line = [&](const PrivacySpent& spent) {
    return "epsilon = " + fixed(spent.epsilon, 3) + " at delta = " + shortest(r.delta) + " (order " +
           std::to_string(spent.order) + ")";
  };
  return "against the server, " + std::to_string(r.participations) +
         " rounds of the busiest client: " + line(server) + "; of the models alone, " +
         std::to_string(r.rounds) + " rounds, sampling rate " + shortest(r.sampling_rate) +
         ", noise multiplier " + fixed(together, 3) + ": " + line(model);
}

}  // namespace mcit::fed
