#pragma once
/// What is wrong with rows of a file: counted, and the first few named.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mcit {

struct Fault {
  std::string kind;
  std::int64_t count = 0;
  std::vector<std::string> first{};  ///< "file:line: what" or an id
};

class Faults {
 public:
  void add(std::string_view kind, const std::string& where) {
    for (Fault& fault : faults_)
      if (fault.kind == kind) return note(fault, where);
    note(faults_.emplace_back(Fault{std::string(kind)}), where);
  }
  std::int64_t count(std::string_view kind) const {
    for (const Fault& fault : faults_)
      if (fault.kind == kind) return fault.count;
    return 0;
  }
  const std::vector<Fault>& all() const { return faults_; }

 private:
  static void note(Fault& fault, const std::string& where) {
    constexpr std::size_t kNamed = 5;
    if (static_cast<std::size_t>(fault.count++) < kNamed) fault.first.push_back(where);
  }
  std::vector<Fault> faults_;
};

}  // namespace mcit
