#include "connector_adapters.hpp"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "mcit/errors.hpp"
#include "mcit/parts/lora.hpp"

namespace mcit::pilot {

Tensor difference_loss(const Tensor& x, const Tensor& y, double floor) {
  constexpr double kTiny = 1e-12;
  const double least = std::max(kTiny, floor * floor);
  const auto unit = [least](const Tensor& rows) {
    const Tensor centred = rows - rows.mean(0, true);
    return centred * at::rsqrt(centred.square().sum(1, true) + least);
  };
  return at::mm(unit(x).t(), unit(y)).square().sum() / static_cast<double>(x.size(0));
}

/// At the first layer: computes the inner rows of all MLPs. Where it is the last layer as well they are
/// multiplied at once, else Exit does it.
class ConnectorAdapters::Entrance final : public Adapter {
 public:
  Entrance(std::shared_ptr<ConnectorAdapters> owner, const Site& site, std::shared_ptr<Tensor> carried)
      : owner_(std::move(owner)),
        carried_(std::move(carried)),
        nothing_(at::zeros({site.out(), 1}, parts::adapter_options(site))) {}

  Tensor down() const override { return owner_->down(); }
  Tensor up() const override { return carried_ ? nothing_ : owner_->up(); }
  /// At a connector all rows of every picture are there; those of one picture are what the router's mean
  /// reads.
  Tensor mix(const Tensor& z, const Tensor&, RouteContext&, const std::string&) const override {
    const Tensor rows = owner_->hidden(z);
    if (!carried_) return rows;
    *carried_ = rows;
    return at::zeros({z.size(0), 1}, z.options());
  }
  Parameters parameters() const override { return {}; }  // the strategy names them

 private:
  std::shared_ptr<ConnectorAdapters> owner_;
  std::shared_ptr<Tensor> carried_;
  Tensor nothing_;
};

/// At the last of two layers: adds what Entrance left.
class ConnectorAdapters::Exit final : public Adapter {
 public:
  Exit(std::shared_ptr<ConnectorAdapters> owner, const Site& site, std::shared_ptr<Tensor> carried)
      : owner_(std::move(owner)),
        carried_(std::move(carried)),
        nothing_(at::zeros({1, site.in()}, parts::adapter_options(site))) {}

  Tensor down() const override { return nothing_; }
  Tensor up() const override { return owner_->up(); }
  Tensor mix(const Tensor&, const Tensor&, RouteContext&, const std::string& site) const override {
    if (!carried_->defined()) throw Error(site, "ran without the connector's first layer");
    return std::exchange(*carried_, Tensor());
  }
  Parameters parameters() const override { return {}; }

 private:
  std::shared_ptr<ConnectorAdapters> owner_;
  std::shared_ptr<Tensor> carried_;
  Tensor nothing_;
};

ConnectorAdapters::ConnectorAdapters(ConnectorOptions options) : options_(std::move(options)) {}

void ConnectorAdapters::attach(Backbone& backbone, const at::Generator& generator) {
  const BackboneInfo& info = backbone.info();
  if (info.family == "text" || info.family == "clip")
    throw UnsupportedBackbone("pilot", "needs a connector between pictures and a decoder");
  const std::vector<Site*> sites = backbone.sites("connector");
  if (sites.size() > 2)
    throw UnsupportedBackbone("pilot", "needs a connector of one or two linear layers; this one has " +
                                           std::to_string(sites.size()));
  Site &first = *sites.front(), &last = *sites.back();
  tile_rows_ = std::max<std::int64_t>(info.image_tokens, 1);
  const at::TensorOptions options = parts::adapter_options(first);
  const std::int64_t width = options_.width > 0 ? options_.width : last.out();
  const auto mlp = [&](std::string name) {
    Tensor down = at::empty({width, first.in()}, at::TensorOptions(at::kFloat));
    const double bound = 1.0 / std::sqrt(static_cast<double>(first.in()));
    down.uniform_(-bound, bound, generator);
    return Mlp{std::move(name), down.to(options).set_requires_grad(true),
               at::zeros({width}, options).set_requires_grad(true),
               at::zeros({last.out(), width}, options).set_requires_grad(true)};
  };
  for (std::size_t t = 0; t < options_.tasks.size(); ++t)
    tasks_.push_back(mlp(prefix(static_cast<std::int64_t>(t))));
  if (options_.client) client_ = mlp("pilot.client.");
  router_ =
      at::zeros({static_cast<std::int64_t>(tasks_.size()), first.in()}, options).set_requires_grad(true);
  route({});
  if (&first == &last) {
    first.attach("pilot", std::make_shared<Entrance>(shared_from_this(), first, nullptr));
    return;
  }
  const auto carried = std::make_shared<Tensor>();
  first.attach("pilot", std::make_shared<Entrance>(shared_from_this(), first, carried));
  last.attach("pilot", std::make_shared<Exit>(shared_from_this(), last, carried));
}

void ConnectorAdapters::route(ConnectorRoute route) {
  route_ = std::move(route);
  route_.known.resize(tasks_.size(), false);
  cursor_ = 0;
  own_.clear();
  private_.clear();
  blocks_.clear();
  for (std::size_t t = 0; t < tasks_.size(); ++t) {
    const auto here = static_cast<std::int64_t>(t);
    const bool chosen = std::find(route_.tasks.begin(), route_.tasks.end(), here) != route_.tasks.end();
    if (chosen || (route_.mix && route_.known[t])) blocks_.push_back(t);
  }
  if (blocks_.empty() && !options_.client) blocks_.push_back(0);  // a product needs a row; its factor is 0
}

ConnectorAdapters::Mlp ConnectorAdapters::task(std::size_t t) const {
  const Mlp& mlp = tasks_[t];
  if (!route_.hold) return mlp;
  return {mlp.name, mlp.down.detach(), mlp.bias.detach(), mlp.up.detach()};
}

std::vector<ConnectorAdapters::Mlp> ConnectorAdapters::answering() const {
  std::vector<Mlp> out;
  for (const std::size_t t : blocks_) out.push_back(task(t));
  if (options_.client) out.push_back(client_);
  return out;
}

/// U of all that answer, then W_g: [E w (+ T), in].
Tensor ConnectorAdapters::down() const {
  std::vector<Tensor> rows;
  for (const Mlp& mlp : answering()) rows.push_back(mlp.down);
  if (route_.mix) rows.push_back(router_);
  return at::cat(rows);
}

Tensor ConnectorAdapters::up() const {
  std::vector<Tensor> columns;
  for (const Mlp& mlp : answering()) columns.push_back(mlp.up);
  return at::cat(columns, 1);
}

/// Tasks of the next `tiles` tiles. Pictures of more than one tile can be told apart only where all have the
/// same task.
std::vector<std::int64_t> ConnectorAdapters::next_tasks(std::int64_t tiles) {
  const std::vector<std::int64_t>& all = route_.tasks;
  const auto count = static_cast<std::size_t>(tiles);
  if (all.empty()) return std::vector<std::int64_t>(count, -1);
  if (std::all_of(all.begin(), all.end(), [&](std::int64_t t) { return t == all.front(); }))
    return std::vector<std::int64_t>(count, all.front());
  if (cursor_ == all.size()) cursor_ = 0;  // another pass over the same batch
  if (cursor_ + count > all.size())
    throw Error("pilot", "a batch of several tasks has pictures of more than one tile",
                "set strategy.inference = \"own\"");
  const auto begin = all.begin() + static_cast<std::ptrdiff_t>(cursor_);
  cursor_ += count;
  return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

/// [tiles, E]: what each MLP's output is multiplied by. @param logits [tiles, T], undefined without CT-MoA
Tensor ConnectorAdapters::coefficients(const std::vector<std::int64_t>& tasks, const Tensor& logits) const {
  const auto flags = [&](const auto& holds) {
    std::vector<double> values;
    for (const std::int64_t task : tasks)
      for (std::size_t i = 0; i < tasks_.size(); ++i)
        values.push_back(holds(task, static_cast<std::int64_t>(i)) ? 1.0 : 0.0);
    return at::tensor(values, at::TensorOptions(at::kDouble))
        .view({static_cast<std::int64_t>(tasks.size()), static_cast<std::int64_t>(tasks_.size())})
        .to(router_.device(), router_.scalar_type());
  };
  const auto known = [&](std::int64_t i) { return route_.known[static_cast<std::size_t>(i)]; };
  const auto mixed = [&](std::int64_t task) {
    return route_.mixed.empty() || (task >= 0 && route_.mixed[static_cast<std::size_t>(task)]);
  };
  Tensor all = flags([](std::int64_t task, std::int64_t i) { return i == task; });
  if (route_.mix) {
    constexpr double kNever = -1e30;
    const Tensor other =
        flags([&](std::int64_t task, std::int64_t i) { return mixed(task) && i != task && known(i); });
    const Tensor counted =
        options_.own_in_gate ? flags([&](std::int64_t task, std::int64_t i) { return i == task || known(i); })
                             : other;
    all = all + at::softmax(logits.masked_fill(counted.eq(0.0), kNever), 1) * other;
  }
  std::vector<Tensor> columns;
  for (const std::size_t t : blocks_) columns.push_back(all.select(1, static_cast<std::int64_t>(t)));
  if (options_.client)
    columns.push_back(
        at::full({static_cast<std::int64_t>(tasks.size())}, options_.client_scale, router_.options()));
  return at::stack(columns, 1);
}

/// @param z [N, E w (+ T)] = H down()ᵀ @return [N, E w]
Tensor ConnectorAdapters::hidden(const Tensor& z) {
  const std::vector<Mlp> mlps = answering();
  const auto count = static_cast<std::int64_t>(mlps.size());
  const std::int64_t width = mlps.front().bias.size(0), rows = z.size(0);
  if (rows % tile_rows_ != 0)
    throw Error("pilot", "the connector reads " + std::to_string(rows) + " rows, no multiple of the " +
                             std::to_string(tile_rows_) + " of a picture");
  const std::int64_t tiles = rows / tile_rows_;
  std::vector<Tensor> biases;
  for (const Mlp& mlp : mlps) biases.push_back(mlp.bias);
  const Tensor inner = at::gelu(z.narrow(1, 0, count * width) + at::cat(biases).to(z.scalar_type()))
                           .reshape({rows, count, width});
  const std::vector<std::int64_t> tasks = next_tasks(tiles);
  if (route_.keep && options_.client && !tasks.empty() && tasks.front() >= 0) {
    const auto own = std::find(blocks_.begin(), blocks_.end(), static_cast<std::size_t>(tasks.front()));
    own_.push_back(inner.select(1, std::distance(blocks_.begin(), own)));
    private_.push_back(inner.select(1, count - 1));
  }
  Tensor logits;
  if (route_.mix)
    logits = z.narrow(1, count * width, static_cast<std::int64_t>(tasks_.size()))
                 .to(router_.scalar_type())
                 .reshape({tiles, tile_rows_, -1})
                 .mean(1);
  const Tensor factor = coefficients(tasks, logits).to(z.scalar_type());  // [tiles, E]
  return (inner.view({tiles, tile_rows_, count, width}) * factor.view({tiles, 1, count, 1}))
      .reshape({rows, count * width});
}

Tensor ConnectorAdapters::difference() const {
  if (own_.empty()) return {};
  const auto out = [](const std::vector<Tensor>& inner, const Tensor& up) {
    return at::linear(at::cat(inner).to(up.scalar_type()), up);
  };
  return difference_loss(out(own_, task(static_cast<std::size_t>(route_.tasks.front())).up),
                         out(private_, client_.up), options_.difference_floor);
}

Parameters ConnectorAdapters::of(const Mlp& mlp) const {
  return {{mlp.name + "down.weight", mlp.down, "connector"},
          {mlp.name + "down.bias", mlp.bias, "connector"},
          {mlp.name + "up.weight", mlp.up, "connector"}};
}

Parameters ConnectorAdapters::of_task(std::int64_t task) const {
  return of(tasks_.at(static_cast<std::size_t>(task)));
}

Parameters ConnectorAdapters::of_client() const {
  Parameters out = options_.client ? of(client_) : Parameters{};
  out.push_back({"pilot.router.weight", router_, "connector"});
  return out;
}

Parameters ConnectorAdapters::parameters() const {
  Parameters out = of_client();
  for (const Mlp& mlp : tasks_)
    for (Parameter& p : of(mlp)) out.push_back(std::move(p));
  return out;
}

std::string ConnectorAdapters::prefix(std::int64_t task) const {
  return "pilot.task." + options_.tasks.at(static_cast<std::size_t>(task)) + ".";
}

void ConnectorAdapters::set_trainable(std::int64_t task) const {
  for (std::size_t t = 0; t < tasks_.size(); ++t)
    for (const Parameter& p : of(tasks_[t])) p.value.set_requires_grad(std::cmp_equal(t, task));
  for (const Parameter& p : of_client()) p.value.set_requires_grad(true);
}

bool ConnectorAdapters::touched(std::int64_t task) const {
  return tasks_.at(static_cast<std::size_t>(task)).up.count_nonzero().item<std::int64_t>() > 0;
}

}  // namespace mcit::pilot
