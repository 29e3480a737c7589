#pragma once
/// What a run of split learning cost whom: split.json (docs/reference/split.md).

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/json.hpp"

namespace mcit::split {

/// How many of a client's test rows of a task are right.
struct Score {
  std::int64_t correct = 0, rows = 0;
};

/// One client's part, of training alone unless said otherwise.
struct ClientRecord {
  std::int64_t train_rows = 0, test_rows = 0;  ///< that it holds
  std::int64_t examples = 0;                   ///< trained on, with repeats
  double flops = 0.0;                          ///< as flops_of() counts
  double cpu_seconds = 0.0;
  std::uint64_t bytes_up = 0, bytes_down = 0;            ///< of messages, without TLS and framing
  std::uint64_t eval_bytes_up = 0, eval_bytes_down = 0;  ///< of evaluation
  std::int64_t parameter_bytes = 0;                      ///< most held at once
  std::int64_t missed = 0;                               ///< requests that it did not answer, or wrongly
  std::map<std::string, Score> scores;                   ///< by task, after the newest evaluation

  double accuracy() const;  ///< percent of all its test rows; 0 without any
};

struct Record {
  std::string method, fusion;  ///< "mpsl" or "fedavg"; "early" or "late"
  std::vector<std::string> modalities;
  bool train_heads = false;
  std::int64_t train_blocks = 0;
  std::int64_t steps = 0;  ///< done
  bool complete = false;
  double server_flops = 0.0, server_cpu_seconds = 0.0;
  std::map<std::string, ClientRecord> clients;
};

Json to_json(const Record& record);
/// @throws DataError naming `where` and the key
Record record_from_json(const Json& json, const std::string& where);
/// A run's folder, or its split.json.
Record read_record(const std::filesystem::path& path);

/// A line for each client, to look at.
std::string table_text(const Record& record);
/// How many times less than `other` a client computes, sends, receives and holds: sums over clients, compute
/// for each row trained on.
std::string comparison_text(const Record& record, const Record& other);

}  // namespace mcit::split
