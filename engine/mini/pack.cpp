#include "mini/pack.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <set>
#include <sstream>
#include <utility>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "mcit/errors.hpp"

namespace mcit::mini {
namespace {

namespace fs = std::filesystem;

constexpr int kCell = 64;
constexpr int kColumns = 16;
constexpr int kVqaSheet = 256;  // pictures to a sheet
constexpr std::uint64_t kMaxTable = 4 << 20;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

/// Rows of a table with a header line, all as wide as the header.
std::vector<std::vector<std::string>> read_table(const fs::path& file, std::size_t columns) {
  std::vector<std::vector<std::string>> rows;
  for (const std::string& line : split(read_file(file, kMaxTable), '\n')) {
    rows.push_back(split(line, '\t'));
    if (rows.back().size() != columns) {
      throw DataError(file.string() + ":" + std::to_string(rows.size()),
                      "expected " + std::to_string(columns) + " columns");
    }
  }
  if (rows.size() < 2) throw DataError(file.string(), "the table is empty");
  rows.erase(rows.begin());
  return rows;
}

int integer(const std::string& text, int low, int high, const fs::path& file) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < low || value > high) {
    throw DataError(file.string(),
                    "'" + text + "' is not a number in " + std::to_string(low) + ".." + std::to_string(high));
  }
  return value;
}

void add_unique(std::vector<std::string>& names, const std::string& name) {
  if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
}

Thing read_thing(const std::string& name, const std::string& group, int cell,
                 const std::array<Raster, 2>& sheets) {
  Thing thing{name, group, {}};
  for (std::size_t v = 0; v < 2; ++v) {
    thing.drawing[v] =
        Texture(crop(sheets[v], cell % kColumns * kCell, cell / kColumns * kCell, kCell, kCell));
  }
  return thing;
}

std::vector<Face> read_faces(const fs::path& folder) {
  const fs::path file = folder / "glyphs.tsv";
  const Raster sheet = read_png(folder / "glyphs.png", 1);
  std::vector<Face> faces;
  for (const auto& row : read_table(file, 10)) {
    if (faces.empty() || faces.back().name != row[0]) faces.push_back({row[0], row[1] == "1", {}});
    std::array<int, 7> n{};
    for (std::size_t i = 0; i < n.size(); ++i) n[i] = integer(row[i + 3], -100, 4096, file);
    if (row[2] != kGlyphs.substr(std::min(faces.back().glyphs.size(), kGlyphs.size() - 1), 1)) {
      throw DataError(file.string(), "the glyphs of " + row[0] + " are out of order");
    }
    faces.back().glyphs.push_back({Texture(crop(sheet, n[5], n[6], n[0], n[1])), n[2], n[3], n[4]});
  }
  for (const Face& face : faces) {
    if (face.glyphs.size() != kGlyphs.size()) throw DataError(file.string(), face.name + " lacks glyphs");
  }
  return faces;
}

std::vector<Digit> read_digits(const fs::path& file) {
  constexpr std::size_t kRecord = 66;
  const std::string bytes = read_file(file, kMaxTable);
  if (bytes.empty() || bytes.size() % kRecord != 0)
    throw DataError(file.string(), "the length is not a multiple of 66 bytes");
  std::vector<Digit> digits(bytes.size() / kRecord);
  for (std::size_t i = 0; i < digits.size(); ++i) {
    const char* record = bytes.data() + i * kRecord;
    digits[i].value = static_cast<unsigned char>(record[0]);
    digits[i].test = record[1] == 1;
    for (std::size_t j = 0; j < 64; ++j) digits[i].ink[j] = static_cast<std::uint8_t>(record[2 + j]);
    const auto& ink = digits[i].ink;
    if (record[0] < 0 || record[0] > 9 || *std::max_element(ink.begin(), ink.end()) > 16) {
      throw DataError(file.string(), "record " + std::to_string(i) + " is not a digit");
    }
  }
  return digits;
}

/// "what is it?" -> "what is it ?"
std::string plain(std::string question) {
  if (question.ends_with('?')) question.insert(question.size() - 1, " ");
  return question;
}

std::vector<VqaItem> read_vqa(const fs::path& file, const std::vector<std::string>& strings, int& pictures) {
  std::vector<VqaItem> items;
  const auto text = [&](const std::string& index) {
    return strings[static_cast<std::size_t>(integer(index, 0, static_cast<int>(strings.size()) - 1, file))];
  };
  pictures = 0;
  for (const std::string& line : split(read_file(file, kMaxTable), '\n')) {
    for (const std::string& pair : split(line, ' ')) {
      const auto sign = pair.find('=');
      if (sign == std::string::npos) throw DataError(file.string(), "'" + pair + "' is not question=answer");
      items.push_back({pictures, plain(text(pair.substr(0, sign))), text(pair.substr(sign + 1))});
    }
    ++pictures;
  }
  return items;
}

std::string digest_of(const fs::path& folder) {
  std::set<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.insert(entry.path());
  Hasher hasher;
  for (const fs::path& file : files) hasher.field(file.filename().string()).field(hash_file(file));
  return hasher.hex();
}

}  // namespace

Pack::Pack(const fs::path& folder) : folder_(folder) {
  if (!fs::is_directory(folder)) {
    throw DataError(folder.string(), "the built-in data pack is not there",
                    "it lies in benchmarks/mcit/mini/pack of the source tree");
  }
  const std::array<Raster, 2> sheets{read_png(folder / "twemoji.png", 4), read_png(folder / "noto.png", 4)};
  for (const auto& row : read_table(folder / "concepts.tsv", 3)) {
    concepts.push_back(read_thing(row[0], row[1], integer(row[2], 0, 4095, folder / "concepts.tsv"), sheets));
    add_unique(classes, row[1]);
  }
  for (const auto& row : read_table(folder / "flags.tsv", 4)) {
    flags.push_back(read_thing(row[1], row[2], integer(row[3], 0, 4095, folder / "flags.tsv"), sheets));
    add_unique(continents, row[2]);
  }
  faces = read_faces(folder);
  digits = read_digits(folder / "digits.bin");
  for (const auto& row : read_table(folder / "words.tsv", 2))
    (row[1] == "1" ? test_words : train_words).push_back(row[0]);
  std::vector<std::string> strings;
  for (const auto& row : read_table(folder / "vqa_strings.tsv", 1)) strings.push_back(row[0]);
  vqa_train = read_vqa(folder / "vqa_train.txt", strings, vqa_count_[0]);
  vqa_test = read_vqa(folder / "vqa_test.txt", strings, vqa_count_[1]);
  digest_ = digest_of(folder);
}

std::vector<Raster> Pack::vqa_pictures(bool test) const {
  std::vector<Raster> pictures;
  Raster sheet;
  for (int i = 0; i < vqa_count_[test ? 1 : 0]; ++i) {
    const int cell = i % kVqaSheet;
    if (cell == 0) {
      const int number = i / kVqaSheet;
      const std::string digits2 = (number < 10 ? "0" : "") + std::to_string(number);
      sheet = read_png(folder_ / ((test ? "vqa_test_" : "vqa_train_") + digits2 + ".png"), 3);
    }
    pictures.push_back(crop(sheet, cell % kColumns * kCell, cell / kColumns * kCell, kCell, kCell));
  }
  return pictures;
}

}  // namespace mcit::mini
