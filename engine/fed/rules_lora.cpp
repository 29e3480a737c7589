// What becomes of LoRA's two factors: the mean of A and the mean of B is not the mean of BA.
#include <Eigen/Dense>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "fed/rules.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Matrix matrix_of(const std::vector<double>& values, const std::vector<std::int64_t>& shape) {
  return Eigen::Map<const Matrix>(values.data(), shape[0], shape[1]);
}
Matrix matrix_of(const Array& array) { return matrix_of(values_of(array), array.shape); }

Array array_of_matrix(Dtype dtype, const Matrix& matrix) {
  return array_of(dtype, {matrix.rows(), matrix.cols()},
                  std::span(matrix.data(), static_cast<std::size_t>(matrix.size())));
}

/// B [d_out, r] and A [r, d_in] of one site.
struct Factors {
  Matrix b, a;
};

struct Truncated {
  Factors factors;
  double lost = 0.0;  ///< ‖M - BA‖_F / ‖M‖_F
};

/// The best factors of rank <= `rank` of M = left·right, [d_out, n][n, d_in], without forming M; the singular
/// values are shared between both (Eckart, Young 1936). The sign of each pair makes B's largest entry
/// positive.
Truncated best_factors(const Matrix& left, const Matrix& right, Eigen::Index rank) {
  const Eigen::HouseholderQR<Eigen::MatrixXd> ql(left), qr(right.transpose());
  const Eigen::Index nl = std::min(left.rows(), left.cols()), nr = std::min(right.rows(), right.cols());
  const Eigen::MatrixXd rl = ql.matrixQR().topRows(nl).triangularView<Eigen::Upper>();
  const Eigen::MatrixXd rr = qr.matrixQR().topRows(nr).triangularView<Eigen::Upper>();
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(rl * rr.transpose(), Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Eigen::VectorXd& s = svd.singularValues();
  const Eigen::Index kept = std::min(rank, s.size());
  const Eigen::MatrixXd u = ql.householderQ() * Eigen::MatrixXd::Identity(left.rows(), nl) * svd.matrixU();
  const Eigen::MatrixXd v = qr.householderQ() * Eigen::MatrixXd::Identity(right.cols(), nr) * svd.matrixV();
  Truncated out{{Matrix::Zero(left.rows(), rank), Matrix::Zero(rank, right.cols())}, 0.0};
  for (Eigen::Index i = 0; i < kept; ++i) {
    Eigen::Index largest = 0;
    u.col(i).cwiseAbs().maxCoeff(&largest);
    const double root = std::sqrt(s(i)) * (u(largest, i) < 0.0 ? -1.0 : 1.0);
    out.factors.b.col(i) = root * u.col(i);
    out.factors.a.row(i) = root * v.col(i).transpose();
  }
  const double all = s.squaredNorm();
  if (all > 0.0) out.lost = std::sqrt(s.tail(s.size() - kept).squaredNorm() / all);
  return out;
}

class LoraRule final : public Aggregator {
 public:
  explicit LoraRule(const Config& settings)
      : average_(settings.choice("average", "product_svd", {"factors", "product_svd", "stack", "freeze_A"})),
        a_(settings.text("a_suffix", "lora_A.weight")),
        b_(settings.text("b_suffix", "lora_B.weight")) {
    if (a_.empty() || b_.empty() || a_ == b_)
      throw ConfigError(settings.where("a_suffix"), "and b_suffix must be two different endings of names");
  }
  std::string name() const override { return "lora/" + average_; }

  Arrays initial(const Arrays& model) const override {
    Arrays state = Aggregator::initial(model);
    const std::vector<std::string> sites = sites_of(state);
    if (sites.empty())
      throw ConfigError("aggregate.rule", "no pair of matrices ends with " + a_ + " and " + b_,
                        "set a_suffix and b_suffix");
    if (average_ != "stack") return state;
    for (const std::string& site : sites) {
      const Array &a = model.at(site + a_), &b = model.at(site + b_);
      for (const double number : values_of(b))
        if (number != 0.0)
          throw ConfigError(site + b_, "does not start at zero",
                            "average = \"stack\" starts every round there");
      state[kStack + site + a_] = zeros(a.dtype, {0, a.shape[1]});
      state[kStack + site + b_] = zeros(b.dtype, {b.shape[0], 0});
    }
    return state;
  }

  /// With "stack": also "stack/<name>", factors that a client adds to its own, frozen.
  Arrays download(const Arrays& state, const std::string& client) const override {
    Arrays out = Aggregator::download(state, client);
    for (const auto& [key, array] : state)
      if (key.starts_with(kStack)) out[key] = array;
    return out;
  }

  std::string objection(const Arrays& state, const Contribution& update) const override {
    if (average_ != "freeze_A") return {};
    for (const std::string& site : sites_of(state)) {
      std::vector<double> delta(state.at(kModel + site + a_).size());
      update.delta(site + a_, Group::model, 0, delta);
      for (const double number : delta)
        if (number != 0.0) return site + a_ + " was trained, which average = freeze_A forbids";
    }
    return {};
  }

  Arrays aggregate(const AggregatorInput& input, Json& notes) const override {
    Arrays next = input.state;
    const std::vector<double> weights = input.weights();
    const std::vector<std::string> sites =
        average_ == "factors" ? std::vector<std::string>{} : sites_of(input.state);
    notes["average"] = average_;
    double lost = 0.0;
    std::int64_t rank = 0;
    for (const std::string& site : sites) {
      if (average_ == "freeze_A") continue;  // the mean of B times the common A is the mean of the products
      const Factors sum = stacked(input, weights, site);
      if (average_ == "stack") {
        rank = std::max(rank, stack(next, site, sum));
      } else {
        Array &a = next.at(kModel + site + a_), &b = next.at(kModel + site + b_);
        const Truncated best = best_factors(sum.b, sum.a, a.shape[0]);
        a = array_of_matrix(a.dtype, best.factors.a);
        b = array_of_matrix(b.dtype, best.factors.b);
        lost = std::max(lost, best.lost);
      }
    }
    for (auto& [key, array] : next) {
      const std::string name = model_name(key);
      if (name.empty() || (average_ != "freeze_A" && of_site(sites, name))) continue;
      array = moved(array, mean_delta(input.updates, weights, name, Group::model, array.size()));
    }
    if (average_ == "product_svd") notes["largest_relative_loss"] = lost;
    if (average_ == "stack") notes["rank"] = rank;
    return next;
  }

 private:
  static constexpr const char* kStack = "stack/";

  /// What stands before the suffix in the names of all pairs that fit together.
  std::vector<std::string> sites_of(const Arrays& state) const {
    std::vector<std::string> out;
    for (const auto& [key, a] : state) {
      const std::string name = model_name(key);
      if (!name.ends_with(a_)) continue;
      const std::string site = name.substr(0, name.size() - a_.size());
      const auto b = state.find(kModel + site + b_);
      if (b != state.end() && a.shape.size() == 2 && b->second.shape.size() == 2 &&
          a.shape[0] == b->second.shape[1])
        out.push_back(site);
    }
    return out;
  }

  bool of_site(const std::vector<std::string>& sites, const std::string& name) const {
    return std::any_of(sites.begin(), sites.end(),
                       [&](const std::string& site) { return name == site + a_ || name == site + b_; });
  }

  /// Σ_k w_k B_k A_k as one product: [√w_1 B_1 | √w_2 B_2 | ...] and the same of A, below one another.
  Factors stacked(const AggregatorInput& input, const std::vector<double>& weights,
                  const std::string& site) const {
    const Array &a = input.state.at(kModel + site + a_), &b = input.state.at(kModel + site + b_);
    const Eigen::Index r = a.shape[0], count = static_cast<Eigen::Index>(input.updates.size());
    Factors out{Matrix(b.shape[0], count * r), Matrix(count * r, a.shape[1])};
    for (Eigen::Index k = 0; k < count; ++k) {
      const Contribution& update = input.updates[static_cast<std::size_t>(k)];
      const double root = std::sqrt(weights[static_cast<std::size_t>(k)]);
      out.a.middleRows(k * r, r) = root * matrix_of(update.value(site + a_, Group::model), a.shape);
      out.b.middleCols(k * r, r) = root * matrix_of(update.value(site + b_, Group::model), b.shape);
    }
    return out;
  }

  /// Puts this round's product behind those before it (FLoRA, Wang et al. 2024); at full rank they are
  /// written with as few columns as there are dimensions. @return the rank now
  std::int64_t stack(Arrays& next, const std::string& site, const Factors& round) const {
    Array &a = next.at(kStack + site + a_), &b = next.at(kStack + site + b_);
    const Matrix before_a = matrix_of(a), before_b = matrix_of(b);
    Factors all{Matrix(round.b.rows(), before_b.cols() + round.b.cols()),
                Matrix(before_a.rows() + round.a.rows(), round.a.cols())};
    all.b.leftCols(before_b.cols()) = before_b;
    all.b.rightCols(round.b.cols()) = round.b;
    all.a.topRows(before_a.rows()) = before_a;
    all.a.bottomRows(round.a.rows()) = round.a;
    const Eigen::Index full = std::min(all.b.rows(), all.a.cols());
    if (all.a.rows() > full) all = best_factors(all.b, all.a, full).factors;
    a = array_of_matrix(a.dtype, all.a);
    b = array_of_matrix(b.dtype, all.b);
    return all.a.rows();
  }

  std::string average_, a_, b_;
};

}  // namespace

std::unique_ptr<Aggregator> make_lora(const Config& settings) { return std::make_unique<LoraRule>(settings); }

}  // namespace mcit::fed
