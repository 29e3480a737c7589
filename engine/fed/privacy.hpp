#pragma once
/// Differential privacy on the client (clip, Gaussian noise) and what it is worth (Rényi accountant).

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace mcit::fed {

/// Where noise comes from: the operating system's generator, through OpenSSL, or a seed that makes a
/// simulation repeatable (and its noise predictable: no protection).
class NoiseSource {
 public:
  static NoiseSource secure();
  explicit NoiseSource(std::uint64_t seed);
  NoiseSource(NoiseSource&&) noexcept;
  NoiseSource& operator=(NoiseSource&&) noexcept;
  ~NoiseSource();
  double normal();  ///< mean 0, deviation 1; Marsaglia's polar method

 private:
  struct State;
  explicit NoiseSource(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// The Gaussian mechanism: scales the whole update to ‖Δ‖₂ <= clip and adds N(0, (noise_multiplier clip)²) to
/// every number. Floating-point noise leaves low-order bits that Mironov (2012) shows how to attack.
/// @return the norm before clipping
double privatize(std::map<std::string, std::vector<double>>& update, double clip, double noise_multiplier,
                 NoiseSource& noise);

/// Rényi divergence of order α >= 2 of one step of the Gaussian mechanism on a Poisson sample of rate q
/// (Mironov, Talwar, Zhang 2019, eq. for integer α): 1/(α-1) ln Σ_k C(α,k) (1-q)^(α-k) q^k exp((k²-k)/(2σ²)).
/// At q = 1 it is α/(2σ²). Infinite without noise.
double rdp_sampled_gaussian(double sampling_rate, double noise_multiplier, std::int64_t order);

struct PrivacySpent {
  double epsilon = 0.0;
  std::int64_t order = 0;  ///< α that gives it
};
/// After `rounds` steps, the least over integer orders 2 .. 256 of
/// rdp + ln((α-1)/α) - (ln δ + ln α)/(α-1) (Canonne, Kamath, Steinke 2020, proposition 12).
PrivacySpent privacy_spent(double sampling_rate, double noise_multiplier, std::int64_t rounds, double delta);

struct PrivacyReport {
  double noise_multiplier = 0.0;  ///< of each client
  double delta = 1e-5;
  std::int64_t participations = 0;  ///< rounds that the busiest client took part in
  std::int64_t rounds = 0;
  double sampling_rate = 1.0;   ///< clients of a round / clients there are
  std::vector<double> weights;  ///< of a round's clients
};
/// Two guarantees, as text: against the server, which sees each client's noisy update (one client's data
/// replaced: sensitivity 2 clip, no sampling); and against whoever sees only the models (one client added or
/// removed, the noise of all clients adds up, the sample as if it were Poisson).
std::string privacy_text(const PrivacyReport& report);

}  // namespace mcit::fed
