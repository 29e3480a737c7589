#pragma once
/// How the updates of a round become the next state: pure functions of (state, updates), each under a name.

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "core/json.hpp"
#include "fed/update.hpp"

namespace mcit::fed {

class Aggregator;

/// An accepted update with the base that it is relative to and the factor that clipping gave it.
struct Contribution {
  std::shared_ptr<const Update> update;
  std::map<std::string, const Array*> base;  ///< null: zero
  double scale = 1.0;                        ///< of tensors of Group::model
  double control_scale = 1.0;                ///< of those of Group::control
  double norm = 0.0;                         ///< ‖value - base‖₂ over Group::model, before clipping
  double control_norm = 0.0;
  std::string digest;  ///< XXH3-128 of header and tensors, in the layout's order

  const std::string& client() const { return update->info().client; }
  double examples() const { return static_cast<double>(update->info().examples); }
  /// One of its tensors, found once for many reads.
  class Part {
   public:
    Part(const Contribution& of, const std::string& tensor, Group group);

    /// scale x (value - base), out.size() elements from `begin`
    void delta(std::size_t begin, std::span<double> out) const;
    /// Σ of the squares of delta(). @param room for as many elements, of no meaning afterwards
    double square_sum(std::size_t begin, std::span<double> room) const;
    /// sum += weight x delta() @param room as above
    void add_to(std::span<double> sum, double weight, std::size_t begin, std::span<double> room) const;
    /// base + delta of the whole tensor
    std::vector<double> value() const;
    void hash(Hasher& hasher, std::size_t begin, std::size_t count) const {
      update_->hash_part(hasher, *source_, begin, count);
    }

   private:
    const Update* update_;
    const Update::Source* source_;
    const Array* base_;
    double factor_;
  };
  Part part(const std::string& tensor, Group group = Group::model) const { return {*this, tensor, group}; }
};

/// What clients weigh: n_k / Σ n, or 1 / K each.
enum class Weighting { examples, uniform };

struct AggregatorInput {
  const Arrays& state;
  std::span<const Contribution> updates;  ///< in the order of client ids, at least one
  Weighting weighting = Weighting::examples;
  std::uint32_t round = 1;

  /// Sums to 1. Uniform when no client has an example.
  std::vector<double> weights() const;
};

/// A rule. The state is everything the server keeps between rounds, the ledger's content: the model's tensors
/// under "model/<name>" and whatever else the rule needs. Nothing is kept in the object.
class Aggregator {
 public:
  virtual ~Aggregator() = default;
  virtual std::string name() const = 0;
  /// State before the first round. @throws ConfigError when the rule cannot work on these tensors
  virtual Arrays initial(const Arrays& model) const;
  /// What an update must hold. The default: every tensor of the model.
  virtual Layout layout(const Arrays& state) const;
  /// Whether clients get models of their own.
  virtual bool personal() const { return false; }
  /// What `client` gets before it trains. The default: the model.
  virtual Arrays download(const Arrays& state, const std::string& client) const;
  /// The bases of an update's tensors. The default: the model's tensors.
  virtual std::map<std::string, const Array*> bases(const Arrays& state, const Update& update) const;
  /// Why an update that is well-formed cannot be used by this rule; empty when it can.
  virtual std::string objection(const Arrays& state, const Contribution& update) const;
  /// The next state. @param notes what the round's record should say about it
  /// @throws Error when these updates cannot be used
  virtual Arrays aggregate(const AggregatorInput& input, Json& notes) const = 0;
};

/// fedavg, fedavgm, fedadam, fedadagrad, fedyogi, median, trimmed_mean, scaffold, lora, distance, subspaces
const std::vector<std::string>& aggregator_names();
/// @param settings the table [aggregate]: `rule` and the rule's own keys @throws ConfigError
std::unique_ptr<Aggregator> make_aggregator(const Config& settings);

// What rules are built of.

inline constexpr const char* kModel = "model/";

/// Σ_k weights[k] delta_k of one tensor, in the order of the updates, in double.
std::vector<double> mean_delta(std::span<const Contribution> updates, std::span<const double> weights,
                               const std::string& tensor, Group group, std::size_t size);
/// Σ_k weights[k] delta_k of all tensors of the model, added to the state and rounded to each tensor's dtype.
void move_model(Arrays& state, const AggregatorInput& input, std::span<const double> weights);
/// Under "model/": the name without it; otherwise empty.
std::string model_name(const std::string& key);
/// base + delta, rounded to the base's dtype.
Array moved(const Array& base, std::span<const double> delta);

}  // namespace mcit::fed
