#pragma once
/// Scalars as TensorBoard reads them: records of TensorFlow's TFRecord framing that hold Event messages.

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>

namespace mcit {

struct Scalar {
  std::string tag;  ///< "train/loss": what stands before the slash is the group that charts are folded under
  double value = 0.0;  ///< kept as float32, as Summary.Value.simple_value is
};

/// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78; RFC 3720, appendix B.4).
std::uint32_t crc32c(std::string_view bytes);

/// One record: length (8 bytes, little endian), its masked CRC-32C, the bytes, their masked CRC-32C. A CRC is
/// masked as rotate_right(crc, 15) + 0xa282ead8, so that a record within a record is no trouble.
std::string event_record(std::string_view message);
/// Event{wall_time, file_version: "brain.Event:2"}: the first record of every file.
std::string version_event(double wall_time);
/// Event{wall_time, step, summary{value{tag, simple_value} …}}. @param wall_time seconds since 1970
std::string scalars_event(double wall_time, std::int64_t step, std::span<const Scalar> scalars);

/// A file that grows while TensorBoard looks at it.
class EventFile {
 public:
  /// Goes on with `file`; one that is new or empty gets its first record. @throws DataError
  explicit EventFile(std::filesystem::path file);

  /// One event at the present time. Buffered, but never longer than a few seconds while events arrive.
  /// @throws DataError when the disk is full
  void scalars(std::int64_t step, std::span<const Scalar> scalars);
  void flush();

 private:
  void append(const std::string& record);

  std::filesystem::path path_;
  std::ofstream file_;
  std::chrono::steady_clock::time_point flushed_;
};

/// Seconds since 1970.
double wall_clock();

}  // namespace mcit
