#include "core/log.hpp"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <mutex>
#include <vector>

#include "core/console.hpp"
#include "mcit/errors.hpp"

namespace mcit::log {
namespace {

using spdlog::level::level_enum;

level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::debug:
      return level_enum::debug;
    case Level::info:
      return level_enum::info;
    case Level::warn:
      return level_enum::warn;
    case Level::error:
      return level_enum::err;
    case Level::off:
      break;
  }
  return level_enum::off;
}

/// Prints above the progress bar: information as it is, trouble with its name in front.
class ConsoleSink final : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const bool colour = console::colours(console::Stream::err);
    std::string text;
    if (message.level == level_enum::warn) text = colour ? "\x1b[33mwarning:\x1b[0m " : "warning: ";
    if (message.level == level_enum::err) text = colour ? "\x1b[31merror:\x1b[0m " : "error: ";
    text.append(message.payload.data(), message.payload.size());
    console::print(text);
  }
  void flush_() override {}
};

struct State {
  std::mutex mutex;
  std::atomic<Level> console{Level::off};
  std::atomic<Level> lowest{Level::off};
  std::shared_ptr<ConsoleSink> console_sink = std::make_shared<ConsoleSink>();
  std::vector<spdlog::sink_ptr> files;

  void settle() { lowest = files.empty() ? console.load() : Level::debug; }
};

State& state() {
  static State* const one = new State;  // never destroyed: destructors may still log
  return *one;
}

}  // namespace

void to_console(Level level) {
  State& one = state();
  const std::lock_guard lock(one.mutex);
  one.console = level;
  one.settle();
}

Level console_level() { return state().console; }

void add_file(const std::filesystem::path& file) {
  State& one = state();
  const std::lock_guard lock(one.mutex);
  try {
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string(), false);
    sink->set_pattern("%Y-%m-%d %H:%M:%S.%e %-5l %v");
    one.files.push_back(std::move(sink));
  } catch (const spdlog::spdlog_ex& error) {
    throw DataError(file.string(), std::string("cannot open the log file: ") + error.what());
  }
  one.settle();
}

void close_files() {
  State& one = state();
  const std::lock_guard lock(one.mutex);
  for (const auto& file : one.files) file->flush();
  one.files.clear();
  one.settle();
}

bool enabled(Level level) {
  return level >= state().lowest.load(std::memory_order_relaxed) && level != Level::off;
}

void write(Level level, std::string_view text) {
  State& one = state();
  const std::lock_guard lock(one.mutex);
  const spdlog::details::log_msg message(spdlog::source_loc{}, "mcit", to_spdlog(level),
                                         spdlog::string_view_t(text.data(), text.size()));
  if (level >= one.console.load()) one.console_sink->log(message);
  // A full disk must not end a run, nor the report of the error that did: the file is given up, once and
  // aloud.
  std::erase_if(one.files, [&](const spdlog::sink_ptr& file) {
    try {
      file->log(message);
      file->flush();
      return false;
    } catch (const std::exception& error) {
      if (one.console.load() <= Level::warn)
        console::print(std::string("warning: log file: ") + error.what());
      return true;
    }
  });
  one.settle();
}

}  // namespace mcit::log
