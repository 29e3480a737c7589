#include "plugin/elf.hpp"

#include <elf.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstring>

#include "core/files.hpp"
#include "core/random.hpp"
#include "mcit/build_tag.hpp"
#include "mcit/descriptor.hpp"
#include "plugin/boost_dll.hpp"
#include "plugin_folder.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

std::string fixture(const std::string& name) { return read_file(test::fixture(name)); }

/// The file with one field of its header set.
template <class T>
std::string with(std::string bytes, T Elf64_Ehdr::*field, T value) {
  Elf64_Ehdr header;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.*field = value;
  std::memcpy(bytes.data(), &header, sizeof header);
  return bytes;
}

}  // namespace

TEST_CASE("A plugin's file says its tag, its exports, and that it stays in memory") {
  const std::string bytes = fixture("makes_nothing");
  const ElfFile elf(bytes);
  CHECK(std::string(elf.section(MCIT_PLUGIN_SECTION).data()) == MCIT_BUILD_TAG);
  CHECK(elf.section("mcit.plugin.none").empty());
  CHECK(elf.exports() == std::vector<std::string>{"mcit_plugin"});
  CHECK(elf.never_unloaded());
}

TEST_CASE("A plain library exports what its author left visible and may be unloaded") {
  const std::string bytes = read_file(MCIT_BINARY_DIR "/lib/libmcit_sdk.so");
  const ElfFile elf(bytes);
  CHECK(elf.exports().size() > 1);
  CHECK_FALSE(elf.never_unloaded());
}

TEST_CASE("What is no library of this machine is named as such") {
  const std::string bytes = fixture("makes_nothing");
  const auto fails = [](const std::string& file, const std::string& why) {
    CHECK_THROWS_MATCHES(ElfFile(file), std::runtime_error, MessageMatches(ContainsSubstring(why)));
  };
  fails("", "no ELF header");
  fails("/* GNU ld script */ INPUT(libc.so)", "no ELF header");
  fails(bytes.substr(0, 40), "headers lie beyond its end");
  fails(with(bytes, &Elf64_Ehdr::e_machine, Elf64_Half{EM_MIPS}), "another kind of machine");
  fails(with(bytes, &Elf64_Ehdr::e_type, Elf64_Half{ET_REL}), "not a shared library");
  fails(with(bytes, &Elf64_Ehdr::e_shoff, Elf64_Off{UINT64_MAX - 8}), "section headers lie beyond its end");
  fails(with(bytes, &Elf64_Ehdr::e_phoff, Elf64_Off{bytes.size() - 8}), "program headers lie beyond its end");
  fails(with(bytes, &Elf64_Ehdr::e_shstrndx, Elf64_Half{0xff00}), "no section table");
  fails(with(bytes, &Elf64_Ehdr::e_shnum, Elf64_Half{0}), "no section table");
}

TEST_CASE("A file cut anywhere is refused before anything maps it") {
  const std::string bytes = fixture("makes_nothing");
  for (std::size_t kept = 0; kept < bytes.size(); kept += 97)
    CHECK_THROWS_AS(ElfFile(std::string_view(bytes).substr(0, kept)), std::runtime_error);
}

TEST_CASE("Damaged headers are refused or read within the file, by Boost.DLL too") {
  const test::PluginFolder folder;
  const std::string whole = fixture("makes_nothing");
  Elf64_Ehdr header;
  std::memcpy(&header, whole.data(), sizeof header);
  Rng rng(7);
  int read = 0;
  for (int round = 0; round < 400; ++round) {
    std::string bytes = whole;
    // One to four wrong bytes in the header or in the section table, where every length and offset stands.
    for (std::uint64_t n = 1 + rng.below(4); n > 0; --n) {
      const std::size_t at = rng.chance(0.5)
                                 ? 16 + rng.below(48)
                                 : header.e_shoff + rng.below(header.e_shnum * sizeof(Elf64_Shdr));
      bytes[at] = static_cast<char>(rng.below(256));
    }
    try {
      const ElfFile elf(bytes);
      elf.exports();
      elf.never_unloaded();
      write_atomic(folder / "damaged.so", bytes);
      CHECK_FALSE(boost::dll::library_info(folder / "damaged.so").sections().empty());
      ++read;
    } catch (const std::runtime_error&) {
      continue;
    }
  }
  CHECK(read > 20);  // the damage is often where nobody looks: then both readers went through the file
}

}  // namespace mcit
