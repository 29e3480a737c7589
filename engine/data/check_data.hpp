#pragma once
/// A suite's files looked at before any training: everything that is wrong, not only the first thing.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/suite.hpp"

namespace mcit {

struct DataFault {
  std::string task, file;
  std::int64_t row = 0;  ///< 1-based; 0 for the file as a whole
  std::string what;
};

struct TaskCheck {
  std::string task;
  std::int64_t train_rows = 0, test_rows = 0, pictures = 0;  ///< different pictures, missing ones included
  std::int64_t missing_pictures = 0;
};

/// Pictures of one task that are missing below one folder.
struct MissingPictures {
  std::string task;
  std::string folder;  ///< the outermost that is not there, or the one that lacks the pictures
  bool there = false;  ///< the folder is there, and lacks some
  std::int64_t pictures = 0;
  std::string example;  ///< path of the first
};

struct DataReport {
  std::vector<TaskCheck> tasks;
  std::vector<MissingPictures> missing;
  std::vector<DataFault> faults;  ///< at most `limit` of each task and kind of file
  std::int64_t total_faults = 0;
};

struct CheckOptions {
  bool deep = false;        ///< also decode every picture
  bool excerpt = false;     ///< the data is a part of the whole: row counts are not compared
  std::int64_t limit = 20;  ///< faults of each file told in full; of missing pictures three are enough
};

/// Files by every name that they may have, keys, types, ids and their repetition, pictures, answers against
/// the closed set, row counts, test ids among the training rows of the same picture and question, client
/// files. Of a classify suite: all that read_class_task() refuses, pictures and their repetition, counts;
/// `file` may be a task's folder.
DataReport check_data(const Suite& suite, const CheckOptions& options,
                      const std::function<void(const std::string&)>& progress);

}  // namespace mcit
