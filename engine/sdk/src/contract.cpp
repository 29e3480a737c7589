// Key functions and defaults of the contract: defined once, here, so that types are the same on both sides of
// a plugin.
#include <torch/types.h>

#include "mcit/causal.hpp"
#include "mcit/errors.hpp"
#include "mcit/peers.hpp"
#include "mcit/strategy.hpp"

namespace mcit {

Batches::~Batches() = default;
Adapter::~Adapter() = default;
Backbone::~Backbone() = default;
Host::~Host() = default;
Federated::~Federated() = default;
Strategy::~Strategy() = default;
Causal::~Causal() = default;
Peers::~Peers() = default;
DataParallel::~DataParallel() = default;

DataParallel::DataParallel() {
  static const Peers alone;
  peers_ = &alone;
}

std::vector<ExamplePtr> Peers::share(const std::vector<ExamplePtr>& all) const {
  std::vector<ExamplePtr> own;
  const auto step = static_cast<std::size_t>(size());
  for (auto i = static_cast<std::size_t>(rank()); i < all.size(); i += step) own.push_back(all[i]);
  return own;
}

std::vector<Stage> Strategy::plan(const StreamInfo& stream) const {
  std::vector<Stage> stages;
  for (std::size_t i = 0; i < stream.tasks.size(); ++i)
    stages.push_back({stream.tasks[i].name, {static_cast<std::int64_t>(i)}});
  return stages;
}

std::vector<Stage> joint_plan(const StreamInfo& stream) {
  Stage all{"joint", {}};
  for (std::size_t i = 0; i < stream.tasks.size(); ++i) all.tasks.push_back(static_cast<std::int64_t>(i));
  return {all};
}

void check_plan(const std::vector<Stage>& stages, const StreamInfo& stream) {
  const auto count = static_cast<std::int64_t>(stream.tasks.size());
  for (const Stage& stage : stages)
    for (const std::int64_t task : stage.tasks)
      if (task < 0 || task >= count)
        throw Error("stage '" + stage.name + "'",
                    "names task " + std::to_string(task) + " of a stream of " + std::to_string(count));
}

std::int64_t Strategy::stored_parameters() const {
  std::int64_t total = 0;
  for (const auto& [name, tensor] : state()) total += tensor.numel();
  return total;
}

Tensor answer_loss(const Forward& out) {
  if (out.logits.size(0) == 0)
    throw Error("loss", "no row of the batch has a label", "every example needs an answer");
  return at::cross_entropy_loss(out.logits, out.targets);
}

void check_table(const std::string& name, const StageTable& table) {
  const std::string where = "host.table '" + name + "'";
  if (name.empty()) throw Error(where, "a table needs a name");
  if (table.values.size() != table.rows.size()) throw Error(where, "has no row of values for each row name");
  for (const std::vector<double>& row : table.values) {
    if (row.size() != table.columns.size())
      throw Error(where, "has a row of another length than its columns");
    for (const double value : row)
      if (!std::isfinite(value)) throw Error(where, "holds a value that is not finite");
  }
}

Prompts Prompts::each() const {
  if (entry.empty()) return *this;
  Prompts out = *this;
  out.entry.clear();
  for (Tensor& layer : out.layers)
    if (layer.defined()) layer = layer.index_select(0, at::tensor(entry, at::kLong).to(layer.device()));
  return out;
}

void RouteContext::clear() {
  text = vision = {};
  heads.clear();
}

Tensor router_input(const Tensor& x, Reads reads, const RowLayout& rows) {
  switch (reads) {
    case Reads::own_row:
    case Reads::sequence:
      return x;
    case Reads::first_row:
      return x.index_select(0, rows.first);
    case Reads::last_prompt_row:
      return x.index_select(0, rows.last_prompt);
    case Reads::prompt_mean:
      break;
  }
  const Tensor end = rows.last_prompt.index_select(0, rows.sequence);
  const Tensor inside = (at::arange(x.size(0), end.options()) <= end).to(x.scalar_type()).unsqueeze(1);
  const Tensor count = (rows.last_prompt - rows.first + 1).to(x.scalar_type()).unsqueeze(1);
  return at::zeros({rows.first.size(0), x.size(1)}, x.options()).index_add(0, rows.sequence, x * inside) /
         count;
}

Site::Site(std::string name, Tensor weight, Tensor bias)
    : name_(std::move(name)), weight_(std::move(weight)), bias_(std::move(bias)) {}

Site::Entry* Site::find(const std::string& adapter_name) {
  for (Entry& entry : entries_)
    if (entry.name == adapter_name) return &entry;
  return nullptr;
}

void Site::refresh() {
  active_.clear();
  for (const Entry& entry : entries_)
    if (entry.active) active_.push_back(entry.adapter);
}

void Site::attach(const std::string& adapter_name, AdapterPtr adapter) {
  if (find(adapter_name)) throw Error(name_, "an adapter named '" + adapter_name + "' is attached already");
  const Tensor down = adapter->down(), up = adapter->up(), route = adapter->route({});
  if (down.dim() != 2 || down.size(1) != in())
    throw Error(name_,
                "adapter '" + adapter_name + "' reads another width than the site's " + std::to_string(in()));
  if (up.dim() != 2 || up.size(0) != out())
    throw Error(name_, "adapter '" + adapter_name + "' writes another width than the site's " +
                           std::to_string(out()));
  if (route.defined() && (route.dim() != 2 || route.size(1) != in()))
    throw Error(name_, "the router of adapter '" + adapter_name + "' reads another width than the site's " +
                           std::to_string(in()));
  entries_.push_back({adapter_name, std::move(adapter), true});
  refresh();
}

void Site::detach(const std::string& adapter_name) {
  if (!find(adapter_name)) throw Error(name_, "no adapter named '" + adapter_name + "'");
  std::erase_if(entries_, [&](const Entry& entry) { return entry.name == adapter_name; });
  refresh();
}

void Site::set_active(const std::string& adapter_name, bool active) {
  Entry* entry = find(adapter_name);
  if (!entry) throw Error(name_, "no adapter named '" + adapter_name + "'");
  entry->active = active;
  refresh();
}

AdapterPtr Site::adapter(const std::string& adapter_name) const {
  for (const Entry& entry : entries_)
    if (entry.name == adapter_name) return entry.adapter;
  return nullptr;
}

}  // namespace mcit
