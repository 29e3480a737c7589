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
  std::int64_t train_rows = 0, test_rows = 0, pictures = 0;
};

struct DataReport {
  std::vector<TaskCheck> tasks;
  std::vector<DataFault> faults;  ///< at most `limit` of each task and kind of file
  std::int64_t total_faults = 0;
};

/// Keys, types, ids and their repetition, pictures, answers against the closed set, row counts, test ids
/// among the training rows of the same picture and question. Of a classify suite: all that read_class_task()
/// refuses, pictures and their repetition, counts; `file` may be a task's folder.
/// @param deep also decode every picture
DataReport check_data(const Suite& suite, bool deep, std::int64_t limit,
                      const std::function<void(const std::string&)>& progress);

}  // namespace mcit
