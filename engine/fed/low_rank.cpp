// All of Eigen that this library needs: it takes a minute to compile.
#include "fed/low_rank.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

namespace mcit::fed {

LowRank low_rank(const Factors& product, std::int64_t rank) {
  using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const RowMajor> left(product.left.data(), product.rows, product.inner),
      right(product.right.data(), product.inner, product.columns);
  const Eigen::HouseholderQR<Eigen::MatrixXd> ql(left), qr(right.transpose());
  const Eigen::Index nl = std::min(left.rows(), left.cols()), nr = std::min(right.rows(), right.cols());
  const Eigen::MatrixXd rl = ql.matrixQR().topRows(nl).triangularView<Eigen::Upper>();
  const Eigen::MatrixXd rr = qr.matrixQR().topRows(nr).triangularView<Eigen::Upper>();
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(rl * rr.transpose(), Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Eigen::VectorXd& s = svd.singularValues();
  const Eigen::Index kept = std::min<Eigen::Index>(rank, s.size());
  const Eigen::MatrixXd u = ql.householderQ() * Eigen::MatrixXd::Identity(left.rows(), nl) * svd.matrixU();
  const Eigen::MatrixXd v = qr.householderQ() * Eigen::MatrixXd::Identity(right.cols(), nr) * svd.matrixV();

  LowRank out;
  out.factors = {product.rows, rank, product.columns,
                 std::vector<double>(static_cast<std::size_t>(product.rows * rank), 0.0),
                 std::vector<double>(static_cast<std::size_t>(rank * product.columns), 0.0)};
  Eigen::Map<RowMajor> b(out.factors.left.data(), product.rows, rank),
      a(out.factors.right.data(), rank, product.columns);
  for (Eigen::Index i = 0; i < kept; ++i) {
    Eigen::Index largest = 0;
    u.col(i).cwiseAbs().maxCoeff(&largest);
    const double root = std::sqrt(s(i)) * (u(largest, i) < 0.0 ? -1.0 : 1.0);
    b.col(i) = root * u.col(i);
    a.row(i) = root * v.col(i).transpose();
  }
  const double all = s.squaredNorm();
  if (all > 0.0) out.lost = std::sqrt(s.tail(s.size() - kept).squaredNorm() / all);
  return out;
}

}  // namespace mcit::fed
