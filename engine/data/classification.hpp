#pragma once
/// Tasks of a classify suite, pictures to classes, read as public data sets are distributed:
///
///     folder        <data>/<image_root>/<folder>/<class>/<picture>, e.g. Office-Home; split by train_share
///     train, test   lists below <data>, a "relative/path label" each line, e.g. miniDomainNet; the pictures
///                   lie below <data>/<image_root>, each in a folder named after its class

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/suite.hpp"

namespace mcit {

struct ClassRecord {
  std::string id;          ///< the picture's path
  std::string image;       ///< relative to data/image_root
  std::int64_t label = 0;  ///< index into ClassTask::classes
  std::int64_t line = 0;   ///< of the list that names it, 1-based; 0 where there is none
};

struct ClassTask {
  std::vector<std::string> classes;      ///< names as words, '_' read as ' '; by folder name, or by label
  std::vector<ClassRecord> train, test;  ///< by path, or in the order of the lists
};

/// The classes and pictures of `task`, a task of a classify suite, of its first suite.most_classes classes.
/// A `folder` is split class by class, a function of split_seed and of the names of task, class and pictures:
/// max(1, round(train_share * pictures)) of them are for training.
/// @throws DataError naming file and line or folder, and how to mend it.
ClassTask read_class_task(const Suite& suite, const SuiteTask& task);

/// What is wrong in a list or folder; line 0 for it as a whole.
using ClassFault =
    std::function<void(const std::filesystem::path& file, std::int64_t line, const std::string& what)>;

/// The same, telling every fault instead of throwing at the first; faulty lines are left out.
ClassTask read_class_task(const Suite& suite, const SuiteTask& task, const ClassFault& fault);

}  // namespace mcit
