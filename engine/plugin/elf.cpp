#include "plugin/elf.hpp"

#include <elf.h>

#include <bit>
#include <cstring>
#include <stdexcept>

namespace mcit {
namespace {

#if defined(__x86_64__)
constexpr Elf64_Half kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr Elf64_Half kMachine = EM_AARCH64;
#else
#error "name this machine's ELF number"
#endif

/// Bytes [offset, offset + size) of `all`. @throws when they are not all there.
std::string_view part(std::string_view all, std::uint64_t offset, std::uint64_t size, const char* what) {
  if (offset > all.size() || size > all.size() - offset)
    throw std::runtime_error(std::string("truncated or damaged: its ") + what + " lie beyond its end");
  return all.substr(offset, size);
}

/// The i-th record of a table whose bytes were checked.
template <class T>
T record(std::string_view table, std::size_t i) {
  T value;
  std::memcpy(&value, table.data() + i * sizeof(T), sizeof(T));
  return value;
}

/// The text at `offset` of a string table, or empty when it has no end.
std::string_view text_at(std::string_view table, std::uint64_t offset) {
  if (offset >= table.size()) return {};
  const std::string_view rest = table.substr(offset);
  const std::size_t end = rest.find('\0');
  return end == std::string_view::npos ? std::string_view() : rest.substr(0, end);
}

Elf64_Ehdr checked_header(std::string_view bytes) {
  if (bytes.size() < EI_NIDENT || bytes.substr(0, SELFMAG) != std::string_view(ELFMAG, SELFMAG))
    throw std::runtime_error("not a shared library (no ELF header)");
  constexpr char kEndian = std::endian::native == std::endian::little ? ELFDATA2LSB : ELFDATA2MSB;
  if (bytes[EI_CLASS] != ELFCLASS64 || bytes[EI_DATA] != kEndian)
    throw std::runtime_error("built for another kind of machine");
  const auto header = record<Elf64_Ehdr>(part(bytes, 0, sizeof(Elf64_Ehdr), "headers"), 0);
  if (header.e_machine != kMachine) throw std::runtime_error("built for another kind of machine");
  if (header.e_type != ET_DYN) throw std::runtime_error("an ELF file, but not a shared library");
  return header;
}

/// What the dynamic loader will map must be in the file: it does not look itself, and a read past the end
/// kills.
void check_segments(std::string_view bytes, const Elf64_Ehdr& header) {
  if (header.e_phnum == 0 || header.e_phentsize != sizeof(Elf64_Phdr))
    throw std::runtime_error("damaged: it has no program headers");
  const std::string_view table =
      part(bytes, header.e_phoff, header.e_phnum * sizeof(Elf64_Phdr), "program headers");
  for (std::size_t i = 0; i < header.e_phnum; ++i) {
    const auto segment = record<Elf64_Phdr>(table, i);
    if (segment.p_type == PT_LOAD) part(bytes, segment.p_offset, segment.p_filesz, "segments");
  }
}

}  // namespace

ElfFile::ElfFile(std::string_view bytes) {
  const Elf64_Ehdr header = checked_header(bytes);
  check_segments(bytes, header);
  if (header.e_shnum == 0 || header.e_shentsize != sizeof(Elf64_Shdr) || header.e_shstrndx >= header.e_shnum)
    throw std::runtime_error("it has no section table, so nothing says that it is a plugin");
  const std::string_view table =
      part(bytes, header.e_shoff, header.e_shnum * sizeof(Elf64_Shdr), "section headers");
  std::vector<std::uint32_t> names;
  for (std::size_t i = 0; i < header.e_shnum; ++i) {
    const auto section = record<Elf64_Shdr>(table, i);
    std::string_view content;
    if (section.sh_type != SHT_NOBITS && section.sh_type != SHT_NULL)
      content = part(bytes, section.sh_offset, section.sh_size, "sections");
    sections_.push_back({{}, section.sh_type, section.sh_link, content});
    names.push_back(section.sh_name);
  }
  const std::string_view texts = sections_[header.e_shstrndx].content;
  // Readers that walk this table name by name, as Boost.DLL does, rely on both.
  if (texts.empty() || texts.back() != '\0')
    throw std::runtime_error("damaged: its section names have no end");
  for (std::size_t i = 0; i < names.size(); ++i) sections_[i].name = text_at(texts, names[i]);
}

std::string_view ElfFile::section(std::string_view name) const {
  for (const Section& section : sections_)
    if (section.name == name) return section.content;
  return {};
}

const ElfFile::Section* ElfFile::of_type(std::uint32_t type) const {
  for (const Section& section : sections_)
    if (section.type == type) return &section;
  return nullptr;
}

std::vector<std::string> ElfFile::exports() const {
  std::vector<std::string> out;
  const Section* symbols = of_type(SHT_DYNSYM);
  if (symbols == nullptr || symbols->link >= sections_.size()) return out;
  const std::string_view texts = sections_[symbols->link].content;
  for (std::size_t i = 0; i < symbols->content.size() / sizeof(Elf64_Sym); ++i) {
    const auto symbol = record<Elf64_Sym>(symbols->content, i);
    const auto visibility = ELF64_ST_VISIBILITY(symbol.st_other);
    if (symbol.st_shndx == SHN_UNDEF || ELF64_ST_BIND(symbol.st_info) == STB_LOCAL) continue;
    if (visibility == STV_HIDDEN || visibility == STV_INTERNAL) continue;
    if (const std::string_view name = text_at(texts, symbol.st_name); !name.empty()) out.emplace_back(name);
  }
  return out;
}

bool ElfFile::never_unloaded() const {
  const Section* dynamic = of_type(SHT_DYNAMIC);
  if (dynamic == nullptr) return false;
  for (std::size_t i = 0; i < dynamic->content.size() / sizeof(Elf64_Dyn); ++i) {
    const auto entry = record<Elf64_Dyn>(dynamic->content, i);
    if (entry.d_tag == DT_NULL) break;
    if (entry.d_tag == DT_FLAGS_1) return (entry.d_un.d_val & DF_1_NODELETE) != 0;
  }
  return false;
}

}  // namespace mcit
