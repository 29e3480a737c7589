#pragma once
/// A shared library as a file: read with every length checked, before anything else trusts it.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mcit {

/// A 64-bit ELF shared library of this machine. Views point into the bytes it was made from.
class ElfFile {
 public:
  /// Checks all tables of the file against its length.
  /// @throws std::runtime_error saying what is wrong with the file.
  explicit ElfFile(std::string_view bytes);

  /// Content of the section, empty when there is none of that name.
  std::string_view section(std::string_view name) const;

  /// Names that other libraries can link to or look up, in file order. They survive `strip`.
  std::vector<std::string> exports() const;
  /// Whether the library stays in memory once it is loaded (-z nodelete).
  bool never_unloaded() const;

 private:
  struct Section {
    std::string_view name;
    std::uint32_t type = 0;
    std::uint32_t link = 0;
    std::string_view content;
  };
  const Section* of_type(std::uint32_t type) const;

  std::vector<Section> sections_;
};

}  // namespace mcit
