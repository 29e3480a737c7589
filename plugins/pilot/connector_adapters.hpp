#pragma once
/// Pilot's connector (Xiong et al., AAAI 2025): beside the pre-trained one an MLP for each task and one for
/// the client, and a router that mixes the other tasks' in.

#include <memory>
#include <string>
#include <vector>

#include "mcit/backbone.hpp"

namespace mcit::pilot {

/// ‖X̂ᵀ Ŷ‖_F² / N of two [N, d] matrices, whose columns are centred and whose rows are then divided by
/// sqrt(‖row‖² + floor²): to unit length where they are long, to nearly nothing where they are short. Zero
/// where the outputs span orthogonal directions.
Tensor difference_loss(const Tensor& x, const Tensor& y, double floor = 0.0);

struct ConnectorOptions {
  std::vector<std::string> tasks;  ///< names, in stream order
  std::int64_t width = 0;          ///< of the MLPs' inner layer; 0: the connector's output width
  bool client = true;              ///< with ψ_s
  double client_scale = 1.0;       ///< what its output is multiplied by
  double difference_floor = 1.0;   ///< of difference_loss
  bool own_in_gate = false;        ///< the router's softmax is over all tasks, not the others alone
};

/// Which MLPs answer in the passes that follow.
struct ConnectorRoute {
  std::vector<std::int64_t> tasks;  ///< of each picture, in the batch's order; -1: no task's MLP
  std::vector<bool> known;          ///< tasks whose MLPs may be mixed in
  bool mix = false;                 ///< CT-MoA
  bool keep = false;                ///< for difference()
  std::vector<bool> mixed = {};     ///< tasks whose pictures CT-MoA is for; empty: all
  bool hold = false;                ///< no gradient reaches the tasks' MLPs
};

/// Beside a connector ψ whose first linear layer reads H and whose last one writes x_img,
///
///     x_img = ψ(H) + ψ_t(H) + Σ_{i≠t} g_i ψ_i(H) + c ψ_s(H)    ψ_i(H) = gelu(H U_iᵀ + c_i) V_iᵀ
///     g = softmax(W_g · mean of H over the picture's rows), over the known tasks but t
///
/// U is drawn, c, V and W_g start at zero: so does every ψ_i.
class ConnectorAdapters : public std::enable_shared_from_this<ConnectorAdapters> {
 public:
  explicit ConnectorAdapters(ConnectorOptions options);

  /// The adapters own this object. @throws UnsupportedBackbone for a connector that is not one linear layer
  /// or two
  void attach(Backbone& backbone, const at::Generator& generator);
  void route(ConnectorRoute route);
  /// difference_loss of the task's and the client's outputs since route(); undefined without a picture.
  Tensor difference() const;

  Parameters parameters() const;  ///< all, group "connector"
  Parameters of_task(std::int64_t task) const;
  Parameters of_client() const;  ///< ψ_s and W_g, which stay with the client
  /// "pilot.task.<name>."
  std::string prefix(std::int64_t task) const;
  /// What trains: this task's MLP and what the client keeps.
  void set_trainable(std::int64_t task) const;
  bool touched(std::int64_t task) const;  ///< its V is not zero

 private:
  class Entrance;
  class Exit;
  struct Mlp {
    std::string name;
    Tensor down, bias, up;  ///< U [w, in], c [w], V [out, w]
  };

  Parameters of(const Mlp& mlp) const;
  Mlp task(std::size_t t) const;
  std::vector<Mlp> answering() const;
  Tensor down() const;
  Tensor up() const;
  Tensor hidden(const Tensor& z);
  Tensor coefficients(const std::vector<std::int64_t>& tasks, const Tensor& logits) const;
  std::vector<std::int64_t> next_tasks(std::int64_t tiles);

  ConnectorOptions options_;
  std::vector<Mlp> tasks_;
  Mlp client_;
  Tensor router_;               ///< W_g [tasks, in]
  std::int64_t tile_rows_ = 1;  ///< rows of a tile at the first layer
  ConnectorRoute route_;
  std::vector<std::size_t> blocks_;    ///< tasks whose MLPs are computed
  std::size_t cursor_ = 0;             ///< pictures of the batch that went through
  std::vector<Tensor> own_, private_;  ///< inner rows of ψ_t and ψ_s
};

}  // namespace mcit::pilot
