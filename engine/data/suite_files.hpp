#pragma once
/// Where a suite's files are: distributions give the same data other names and other folders.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/suite.hpp"

namespace mcit {

/// Takes, of every file and folder that may have several names, the first that is there below suite.data.
/// What has none keeps its first name.
void locate(Suite& suite);

/// The files of a suite's file name, from suite.data: one, or where its last part holds a "*" all that fit,
/// in the order of the numbers in their names; none when there are none.
std::vector<std::filesystem::path> files_of(const Suite& suite, const std::filesystem::path& name);

/// A task's rows of this kind, of all its files, as read_records() reads them.
std::vector<Record> read_task(const Suite& suite, const SuiteTask& task, RecordKind kind);

/// Folder that the pictures of a task's rows start from.
std::filesystem::path picture_root(const Suite& suite, const SuiteTask& task, RecordKind kind);

/// How much of a suite a folder holds.
struct DataPlace {
  std::filesystem::path folder;
  std::int64_t found = 0, wanted = 0;  ///< files and folders that the suite names
};

/// Of these folders, and of those in them that are called as the suite's data is, the one that holds most of
/// its files; the first of equals. `folder` is empty when none holds any.
DataPlace find_data(const Suite& suite, const std::vector<std::filesystem::path>& roots);

/// The folders that the environment variable MCIT_DATA names, separated by ":".
std::vector<std::filesystem::path> data_roots();

}  // namespace mcit
