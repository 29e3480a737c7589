#pragma once
/// What federated methods add to a client's training, on plain numbers: the trainer hands in the storage of
/// its parameters and gradients.

#include <cstddef>
#include <span>

namespace mcit::fed {

inline constexpr const char* kControl = "control/";  ///< before the names of SCAFFOLD's variates

/// FedProx (Li et al. 2020): the gradient of μ/2 ‖w - w_global‖², added to `gradient`.
template <class T>
void add_proximal(std::span<T> gradient, std::span<const T> w, std::span<const T> global, T mu) {
  for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] += mu * (w[i] - global[i]);
}

/// SCAFFOLD (Karimireddy et al. 2020): gradient + c - c_k.
template <class T>
void add_control(std::span<T> gradient, std::span<const T> server, std::span<const T> own) {
  for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] += server[i] - own[i];
}

/// SCAFFOLD's option II after `steps` plain gradient steps of rate η from x to y: c_k⁺ - c_k = (x - y) / (K
/// η) - c. `own` becomes c_k⁺, `change` what is sent. With another local optimizer than SGD it is an
/// approximation.
template <class T>
void update_control(std::span<T> own, std::span<T> change, std::span<const T> server, std::span<const T> x,
                    std::span<const T> y, T steps_times_rate) {
  for (std::size_t i = 0; i < own.size(); ++i) {
    change[i] = (x[i] - y[i]) / steps_times_rate - server[i];
    own[i] += change[i];
  }
}

}  // namespace mcit::fed
