#include "fed/partition.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/dirichlet.hpp"
#include "core/json.hpp"
#include "core/random.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

constexpr int kTries = 1000;  // of a random draw that must leave every client enough rows

std::size_t size_of(std::int64_t n) { return static_cast<std::size_t>(n); }

/// Rows of each label, shuffled.
std::vector<std::vector<std::int64_t>> by_label(std::span<const std::int64_t> labels, Rng& rng) {
  std::vector<std::vector<std::int64_t>> out;
  for (std::size_t row = 0; row < labels.size(); ++row) {
    if (labels[row] < 0) throw DataError("partition", "row " + std::to_string(row) + " has no label");
    if (size_of(labels[row]) >= out.size()) out.resize(size_of(labels[row]) + 1);
    out[size_of(labels[row])].push_back(static_cast<std::int64_t>(row));
  }
  for (std::vector<std::int64_t>& rows : out) rng.shuffle(rows);
  return out;
}

/// `rows` cut where the running sums of the shares fall, the rounding never more than one row off.
void deal(std::span<const std::int64_t> rows, std::span<const double> shares, Partition& out) {
  double sum = 0.0;
  std::size_t begin = 0;
  for (std::size_t k = 0; k < shares.size(); ++k) {
    sum += shares[k];
    const auto end =
        k + 1 == shares.size()
            ? rows.size()
            : std::min(rows.size(), size_of(std::llround(sum * static_cast<double>(rows.size()))));
    for (std::size_t i = begin; i < end; ++i) out[k].push_back(rows[i]);
    begin = std::max(begin, end);
  }
}

std::vector<double> even(std::size_t count) {
  return std::vector<double>(count, 1.0 / static_cast<double>(count));
}

std::vector<std::int64_t> shuffled_rows(std::size_t count, Rng& rng) { return rng.permutation(count); }

Partition iid(std::span<const std::int64_t> labels, const PartitionOptions& o, Rng& rng) {
  Partition out(size_of(o.clients));
  deal(shuffled_rows(labels.size(), rng), even(out.size()), out);
  return out;
}

Partition label_dirichlet(std::span<const std::int64_t> labels, const PartitionOptions& o, Rng& rng) {
  Partition out(size_of(o.clients));
  for (const std::vector<std::int64_t>& rows : by_label(labels, rng))
    deal(rows, dirichlet(rng, out.size(), o.alpha), out);
  return out;
}

/// The index that a point of [0, Σ weights) falls on.
std::size_t pick(std::span<const double> weights, double point) {
  std::size_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0.0) continue;
    last = i;
    if (point < weights[i]) return i;
    point -= weights[i];
  }
  return last;
}

Partition inner_dirichlet(std::span<const std::int64_t> labels, const PartitionOptions& o, Rng& rng) {
  std::vector<std::vector<std::int64_t>> left = by_label(labels, rng);
  Partition out(size_of(o.clients));
  std::vector<std::vector<double>> priors;
  for (std::size_t k = 0; k < out.size(); ++k) priors.push_back(dirichlet(rng, left.size(), o.alpha));
  // One row a client and turn, so that no client is left with what the others did not want.
  for (std::size_t dealt = 0; dealt < labels.size(); ++dealt) {
    const std::size_t k = dealt % out.size();
    std::vector<double> weights(left.size(), 0.0);
    double sum = 0.0;
    for (std::size_t label = 0; label < left.size(); ++label)
      if (!left[label].empty()) sum += weights[label] = priors[k][label];
    if (!(sum > 0.0))  // its prior is on labels that are used up
      for (std::size_t label = 0; label < left.size(); ++label)
        sum += weights[label] = static_cast<double>(left[label].size());
    std::vector<std::int64_t>& rows = left[pick(weights, rng.uniform() * sum)];
    out[k].push_back(rows.back());
    rows.pop_back();
  }
  return out;
}

Partition pathological(std::span<const std::int64_t> labels, const PartitionOptions& o, Rng& rng) {
  const std::vector<std::vector<std::int64_t>> rows = by_label(labels, rng);
  const std::size_t count = rows.size(), clients = size_of(o.clients), each = size_of(o.classes_per_client);
  if (each > count)
    throw ConfigError("partition.classes_per_client",
                      "is more than the " + std::to_string(count) + " labels");
  if (clients * each < count)
    throw ConfigError("partition.classes_per_client", "leaves labels to nobody: " + std::to_string(clients) +
                                                          " clients take " + std::to_string(clients * each) +
                                                          " of " + std::to_string(count));
  const std::vector<std::int64_t> order = rng.permutation(count), seats = rng.permutation(clients);
  std::vector<std::vector<std::size_t>> owners(
      count);  // consecutive places of a ring: all labels, all different
  for (std::size_t k = 0; k < clients; ++k)
    for (std::size_t j = 0; j < each; ++j)
      owners[size_of(order[(k * each + j) % count])].push_back(size_of(seats[k]));
  Partition out(clients);
  for (std::size_t label = 0; label < count; ++label) {
    Partition part(owners[label].size());
    deal(rows[label], even(part.size()), part);
    for (std::size_t i = 0; i < part.size(); ++i)
      out[owners[label][i]].insert(out[owners[label][i]].end(), part[i].begin(), part[i].end());
  }
  return out;
}

Partition shards(std::span<const std::int64_t> labels, const PartitionOptions& o, Rng& rng) {
  std::vector<std::int64_t> sorted;
  for (const std::vector<std::int64_t>& rows : by_label(labels, rng))
    sorted.insert(sorted.end(), rows.begin(), rows.end());
  const std::size_t count = size_of(o.clients) * size_of(o.shards_per_client);
  Partition pieces(count), out(size_of(o.clients));
  deal(sorted, even(count), pieces);
  const std::vector<std::int64_t> order = rng.permutation(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::vector<std::int64_t>& piece = pieces[size_of(order[i])];
    out[i % out.size()].insert(out[i % out.size()].end(), piece.begin(), piece.end());
  }
  return out;
}

Partition sizes(std::span<const std::int64_t> labels, const PartitionOptions& o, Rng& rng) {
  Partition out(size_of(o.clients));
  std::vector<double> shares;
  for (std::size_t k = 0; k < out.size(); ++k) {
    const auto place = static_cast<double>(k + 1);
    const double along = out.size() > 1 ? static_cast<double>(k) / static_cast<double>(out.size() - 1) : 0.0;
    shares.push_back(o.skew == "linear"   ? place
                     : o.skew == "square" ? place * place
                                          : std::pow(o.ratio, along));
  }
  if (o.skew == "dirichlet") shares = dirichlet(rng, out.size(), o.alpha);
  double sum = 0.0;
  for (const double share : shares) sum += share;
  for (double& share : shares) share /= sum;
  deal(shuffled_rows(labels.size(), rng), shares, out);
  return out;
}

Partition one_label(std::span<const std::int64_t> labels, const PartitionOptions& o, Rng& rng) {
  const std::vector<std::vector<std::int64_t>> rows = by_label(labels, rng);
  Partition out(size_of(o.clients));
  if (out.size() < rows.size())
    throw ConfigError("partition.clients", "must be at least the " + std::to_string(rows.size()) +
                                               " labels, each of which needs a client");
  for (std::size_t label = 0; label < rows.size(); ++label) {
    Partition part((out.size() - label + rows.size() - 1) / rows.size());
    deal(rows[label], even(part.size()), part);
    for (std::size_t i = 0; i < part.size(); ++i) out[label + i * rows.size()] = std::move(part[i]);
  }
  return out;
}

using Kind = Partition (*)(std::span<const std::int64_t>, const PartitionOptions&, Rng&);
struct NamedKind {
  const char* name;
  Kind make;
};
constexpr NamedKind kKinds[] = {{"iid", iid},
                                {"dirichlet", label_dirichlet},
                                {"inner_dirichlet", inner_dirichlet},
                                {"pathological", pathological},
                                {"shard", shards},
                                {"size", sizes},
                                {"label", one_label}};

std::vector<std::string> kind_names() {
  std::vector<std::string> out;
  for (const NamedKind& kind : kKinds) out.emplace_back(kind.name);
  return out;
}

}  // namespace

PartitionOptions PartitionOptions::read(const Config& table) {
  PartitionOptions o;
  o.kind = table.choice("kind", o.kind, kind_names());
  o.clients = table.integer("clients", o.clients, 1);
  o.alpha = table.number("alpha", o.alpha, 0.0);
  if (o.alpha <= 0.0) throw ConfigError(table.where("alpha"), "must be positive");
  o.classes_per_client = table.integer("classes_per_client", o.classes_per_client, 1);
  o.shards_per_client = table.integer("shards_per_client", o.shards_per_client, 1);
  o.skew = table.choice("skew", o.skew, {"linear", "square", "geometric", "dirichlet"});
  o.ratio = table.number("ratio", o.ratio, 1.0);
  o.least = table.integer("least", o.least, 0);
  return o;
}

Partition make_partition(std::span<const std::int64_t> labels, const PartitionOptions& options) {
  if (options.clients < 1) throw ConfigError("partition.clients", "must be at least 1");
  if (options.least * options.clients > static_cast<std::int64_t>(labels.size()))
    throw ConfigError("partition.clients", std::to_string(labels.size()) + " rows are too few for " +
                                               std::to_string(options.clients) + " clients of at least " +
                                               std::to_string(options.least));
  const auto* kind = std::find_if(std::begin(kKinds), std::end(kKinds),
                                  [&](const NamedKind& k) { return options.kind == k.name; });
  if (kind == std::end(kKinds))
    throw ConfigError("partition.kind", "unknown name '" + options.kind + "'",
                      suggestion(options.kind, kind_names()));
  for (int attempt = 0; attempt < kTries; ++attempt) {
    Rng rng(derive(options.seed, {"partition", std::string_view(options.kind), attempt}));
    Partition out = kind->make(labels, options, rng);
    for (std::vector<std::int64_t>& rows : out) std::sort(rows.begin(), rows.end());
    if (std::all_of(out.begin(), out.end(), [&](const auto& rows) {
          return static_cast<std::int64_t>(rows.size()) >= options.least;
        }))
      return out;
  }
  throw ConfigError("partition.least", "no draw gave every client " + std::to_string(options.least) + " rows",
                    "lower it, raise alpha, or take fewer clients");
}

NaturalPartition natural_partition(std::span<const std::string> ids) {
  std::map<std::string, std::vector<std::int64_t>> groups;
  for (std::size_t row = 0; row < ids.size(); ++row) {
    if (ids[row].empty()) throw DataError("partition", "row " + std::to_string(row) + " has no client id");
    groups[ids[row]].push_back(static_cast<std::int64_t>(row));
  }
  NaturalPartition out;
  for (auto& [id, rows] : groups) {
    out.names.push_back(id);
    out.rows.push_back(std::move(rows));
  }
  return out;
}

Partition read_fcit_partition(const std::filesystem::path& folder, std::span<const std::string> ids) {
  std::map<std::string, std::int64_t> row_of;
  for (std::size_t row = 0; row < ids.size(); ++row)
    if (!row_of.emplace(ids[row], static_cast<std::int64_t>(row)).second)
      throw DataError(folder.string(), "cannot be used: two training rows have the id '" + ids[row] + "'");
  Partition out;
  std::set<std::int64_t> given;
  for (;;) {
    const std::filesystem::path file = folder / ("client_" + std::to_string(out.size()) + ".json");
    if (!std::filesystem::exists(file)) break;
    const Json records = read_json(file);
    if (!records.is_array()) throw DataError(file.string(), "is no list of records");
    std::vector<std::int64_t>& rows = out.emplace_back();
    for (const Json& record : records) {
      if (!record.is_object()) throw DataError(file.string(), "holds something that is no record");
      const auto named = record.find(record.contains("question_id") ? "question_id" : "id");
      if (named == record.end()) throw DataError(file.string(), "a record has neither question_id nor id");
      const std::string id = named->is_string() ? named->get<std::string>() : dump_json(*named);
      const auto row = row_of.find(id);
      if (row == row_of.end()) throw DataError(file.string(), "'" + id + "' is no row of the training file");
      if (!given.insert(row->second).second) throw DataError(file.string(), "'" + id + "' is given twice");
      rows.push_back(row->second);
    }
    std::sort(rows.begin(), rows.end());
  }
  if (out.empty()) throw DataError(folder.string(), "holds no client_0.json");
  return out;
}

std::vector<std::vector<std::int64_t>> histogram(const Partition& partition,
                                                 std::span<const std::int64_t> labels,
                                                 std::int64_t label_count) {
  std::vector<std::vector<std::int64_t>> out;
  for (const std::vector<std::int64_t>& rows : partition) {
    std::vector<std::int64_t>& counts = out.emplace_back(size_of(label_count), 0);
    for (const std::int64_t row : rows) ++counts.at(size_of(labels[size_of(row)]));
  }
  return out;
}

std::string histogram_text(const std::vector<std::vector<std::int64_t>>& counts,
                           const std::vector<std::string>& clients, const std::vector<std::string>& labels) {
  std::vector<std::vector<std::string>> cells{{""}};
  for (const std::string& label : labels) cells[0].push_back(label);
  cells[0].emplace_back("all");
  std::vector<std::int64_t> sums(labels.size() + 1, 0);
  for (std::size_t k = 0; k < counts.size(); ++k) {
    std::vector<std::string>& line = cells.emplace_back();
    line.push_back(k < clients.size() ? clients[k] : "client-" + std::to_string(k));
    std::int64_t all = 0;
    for (std::size_t j = 0; j < labels.size(); ++j) {
      line.push_back(std::to_string(counts[k][j]));
      sums[j] += counts[k][j];
      all += counts[k][j];
    }
    line.push_back(std::to_string(all));
    sums.back() += all;
  }
  std::vector<std::string>& last = cells.emplace_back(std::vector<std::string>{"all"});
  for (const std::int64_t sum : sums) last.push_back(std::to_string(sum));
  std::vector<std::size_t> widths(cells[0].size(), 0);
  for (const auto& line : cells)
    for (std::size_t j = 0; j < line.size(); ++j) widths[j] = std::max(widths[j], line[j].size());
  std::string out;
  for (const auto& line : cells) {
    for (std::size_t j = 0; j < line.size(); ++j) {
      const std::string pad(widths[j] - line[j].size(), ' ');
      out += j == 0 ? line[j] + pad : "  " + pad + line[j];
    }
    out += "\n";
  }
  return out;
}

double heterogeneity(const std::vector<std::vector<std::int64_t>>& counts) {
  if (counts.empty()) return 0.0;
  std::vector<double> all(counts[0].size(), 0.0);
  double total = 0.0;
  for (const auto& line : counts)
    for (std::size_t j = 0; j < line.size(); ++j) {
      all[j] += static_cast<double>(line[j]);
      total += static_cast<double>(line[j]);
    }
  double sum = 0.0;
  for (const auto& line : counts) {
    double own = 0.0, distance = 0.0;
    for (const std::int64_t n : line) own += static_cast<double>(n);
    if (own <= 0.0) continue;
    for (std::size_t j = 0; j < line.size(); ++j)
      distance += std::fabs(static_cast<double>(line[j]) / own - all[j] / total);
    sum += 0.5 * distance;
  }
  return sum / static_cast<double>(counts.size());
}

}  // namespace mcit::fed
