#pragma once
/// One `mcit` in a process of its own, heard line by line.

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace mcit {

/// Ends with its parent: whoever loses it is asked to save and stop. Keys pressed on the terminal reach the
/// parent alone.
class GridProcess {
 public:
  /// @param arguments behind "mcit" @param device "cuda:N", which is then the only one that it sees, or empty
  /// @throws Error when there is no process to be had; ConfigError when there is no such device
  GridProcess(const std::vector<std::string>& arguments, const std::string& device);
  GridProcess(const GridProcess&) = delete;
  GridProcess& operator=(const GridProcess&) = delete;
  GridProcess(GridProcess&& other) noexcept;
  GridProcess& operator=(GridProcess&& other) noexcept;
  ~GridProcess();

  void ask_to_stop() const;
  /// Hands on whole lines of what it printed to stderr. @return false at the end of its output
  bool read(const std::function<void(const std::string&)>& line);
  /// Waits for its end. @return empty when it ended well, else how: "exit code 2", "killed by signal 9"
  std::string finish();

  int output() const { return output_; }

 private:
  pid_t process_ = -1;
  int output_ = -1;
  std::string text_;  ///< of a line that has begun
};

/// Waits until one of them has output or has ended. @return which of them have @param most milliseconds
std::vector<bool> wait_for_output(const std::vector<GridProcess>& processes, int most);

/// What CUDA_VISIBLE_DEVICES has to be for device "cuda:N" to be the only one. @param visible its value now;
/// empty = all are visible @throws ConfigError
std::string visible_device(const std::string& device, const std::string& visible);

/// @throws ConfigError unless they are cpu alone or different cuda:N
void check_devices(const std::vector<std::string>& devices);

}  // namespace mcit
