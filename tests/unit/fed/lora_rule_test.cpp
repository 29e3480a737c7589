// Exact averaging of LoRA: what the new factors multiply to, against the mean of the products.
#include <Eigen/Dense>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "mcit/errors.hpp"
#include "unit/fed/bench.hpp"

using namespace mcit;
using namespace mcit::fed;
using namespace mcit::fed::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

namespace {

constexpr const char* kA = "q.lora_A.weight";
constexpr const char* kB = "q.lora_B.weight";

Matrix random(Eigen::Index rows, Eigen::Index columns, Rng& rng) {
  Matrix out(rows, columns);
  for (Eigen::Index i = 0; i < out.size(); ++i) out.data()[i] = rng.normal();
  return out;
}

std::vector<double> flat(const Matrix& m) { return {m.data(), m.data() + m.size()}; }

Matrix matrix(const Array& array) {
  const std::vector<double> values = values_of(array);
  return Eigen::Map<const Matrix>(values.data(), array.shape[0], array.shape[1]);
}

Bench bench_of(const std::string& average, const Matrix& b, const Matrix& a) {
  return Bench("rule = \"lora\"\naverage = \"" + average + "\"",
               {{kA, doubles({a.rows(), a.cols()}, flat(a))},
                {kB, doubles({b.rows(), b.cols()}, flat(b))},
                {"bias", doubles({1}, {0})}});
}

Client client_of(const std::string& id, std::int64_t n, const Matrix& b, const Matrix& a) {
  return {id, n, {{kA, flat(a)}, {kB, flat(b)}, {"bias", {static_cast<double>(n)}}}};
}

}  // namespace

TEST_CASE("product_svd: where the mean product has the rank, the new factors are exact") {
  // All clients in one space of rank 3: B_k = U S_k, A_k = V. Then Σ w BA = U (Σ w S_k) V is of rank 3.
  Rng rng(1);
  const Matrix u = random(7, 3, rng), v = random(3, 9, rng);
  Bench bench = bench_of("product_svd", Matrix::Zero(7, 3), random(3, 9, rng));
  std::vector<Client> clients;
  Matrix mean = Matrix::Zero(7, 9);
  const std::int64_t n[] = {1, 2, 5};
  for (int k = 0; k < 3; ++k) {
    const Matrix b = u * random(3, 3, rng);
    clients.push_back(client_of(std::string(1, static_cast<char>('a' + k)), n[k], b, v));
    mean += static_cast<double>(n[k]) / 8.0 * b * v;
  }
  bench.take(clients);
  const Matrix product =
      matrix(bench.state.at(std::string("model/") + kB)) * matrix(bench.state.at(std::string("model/") + kA));
  CHECK((product - mean).norm() / mean.norm() < 1e-12);
  CHECK(bench.notes["largest_relative_loss"].get<double>() < 1e-12);
  CHECK(bench.notes["average"] == "product_svd");
  CHECK(values_of(bench.state.at("model/bias"))[0] == (1.0 + 4.0 + 25.0) / 8.0);
}

TEST_CASE(
    "product_svd: else the factors are the best of their rank (Eckart and Young), and the loss is named") {
  Rng rng(2);
  Bench bench = bench_of("product_svd", Matrix::Zero(12, 4), random(4, 10, rng));
  std::vector<Client> clients;
  Matrix mean = Matrix::Zero(12, 10);
  Matrix mean_b = Matrix::Zero(12, 4), mean_a = Matrix::Zero(4, 10);
  for (int k = 0; k < 5; ++k) {
    const Matrix b = random(12, 4, rng), a = random(4, 10, rng);
    clients.push_back(client_of(std::string(1, static_cast<char>('a' + k)), 1, b, a));
    mean += 0.2 * b * a;
    mean_b += 0.2 * b;
    mean_a += 0.2 * a;
  }
  bench.take(clients);
  const Matrix product =
      matrix(bench.state.at(std::string("model/") + kB)) * matrix(bench.state.at(std::string("model/") + kA));
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(mean, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Eigen::MatrixXd best = svd.matrixU().leftCols(4) * svd.singularValues().head(4).asDiagonal() *
                               svd.matrixV().leftCols(4).transpose();
  CHECK((product - best).norm() < 1e-12 * mean.norm());
  const double lost = (product - mean).norm() / mean.norm();
  CHECK(std::fabs(bench.notes["largest_relative_loss"].get<double>() - lost) < 1e-12);
  CHECK(lost > 0.1);
  // The trap: the product of the means is far from the mean of the products.
  CHECK((mean_b * mean_a - mean).norm() / mean.norm() > 0.5);
  Bench factors = bench_of("factors", Matrix::Zero(12, 4), Matrix::Zero(4, 10));
  factors.take(clients);
  CHECK((matrix(factors.state.at(std::string("model/") + kB)) - mean_b).norm() < 1e-13);
  CHECK((matrix(factors.state.at(std::string("model/") + kA)) - mean_a).norm() < 1e-13);
}

TEST_CASE("stack: the products of all rounds add up exactly, at any number of clients and rounds") {
  // FLoRA: round after round Σ_k w_k B_k A_k is added to a frozen stack, and training starts anew from B = 0.
  Rng rng(3);
  const Matrix start = random(2, 6, rng);
  Bench bench = bench_of("stack", Matrix::Zero(5, 2), start);
  Matrix sum = Matrix::Zero(5, 6);
  for (int round = 0; round < 4; ++round) {
    std::vector<Client> clients;
    for (int k = 0; k < 2; ++k) {
      const Matrix b = random(5, 2, rng), a = random(2, 6, rng);
      clients.push_back(client_of(std::string(1, static_cast<char>('a' + k)), 1 + 2 * k, b, a));
      sum += (1.0 + 2.0 * k) / 4.0 * b * a;
    }
    bench.take(clients);
    const Arrays download = bench.rule->download(bench.state, "a");
    const Matrix b = matrix(download.at(std::string("stack/") + kB)),
                 a = matrix(download.at(std::string("stack/") + kA));
    CHECK((b * a - sum).norm() < 1e-12 * sum.norm());
    CHECK(a.rows() <= 5);  // never more columns than dimensions
    CHECK(bench.notes["rank"] == a.rows());
    CHECK(matrix(download.at(kA)) == start);
    CHECK(matrix(download.at(kB)).norm() == 0.0);
  }
  CHECK_THROWS_MATCHES(bench_of("stack", Matrix::Ones(5, 2), start), ConfigError,
                       MessageMatches(ContainsSubstring("does not start at zero")));
}

TEST_CASE("freeze_A: B's mean is exact, and a client that trained A is refused") {
  Rng rng(4);
  const Matrix a = random(2, 6, rng), b1 = random(5, 2, rng), b2 = random(5, 2, rng);
  Bench bench = bench_of("freeze_A", Matrix::Zero(5, 2), a);
  const auto good = bench.prepare({client_of("a", 1, b1, a)});
  CHECK(bench.rule->objection(bench.state, good.updates[0]).empty());
  const auto bad = bench.prepare({client_of("a", 1, b1, a + 1e-9 * Matrix::Ones(2, 6))});
  CHECK_THAT(bench.rule->objection(bench.state, bad.updates[0]),
             ContainsSubstring("lora_A.weight was trained"));
  bench.take({client_of("a", 1, b1, a), client_of("b", 3, b2, a)});
  const Matrix mean = 0.25 * b1 * a + 0.75 * b2 * a;
  CHECK((matrix(bench.state.at(std::string("model/") + kB)) * a - mean).norm() < 1e-13);
  CHECK(matrix(bench.state.at(std::string("model/") + kA)) == a);
}

TEST_CASE("a model without pairs of factors is refused, with the settings that say what they are called") {
  CHECK_THROWS_MATCHES(Bench("rule = \"lora\"", {{"w", doubles({2, 2}, {0, 0, 0, 0})}}), ConfigError,
                       MessageMatches(ContainsSubstring("a_suffix")));
  const Bench other("rule = \"lora\"\na_suffix = \".down\"\nb_suffix = \".up\"",
                    {{"s.down", doubles({1, 2}, {1, 1})}, {"s.up", doubles({2, 1}, {0, 0})}});
  CHECK(other.rule->name() == "lora/product_svd");
}
