// Hostile and damaged files: one clear error each, and never a read outside the file.
#include <cstring>
#include <filesystem>
#include <fstream>

#include "mcit/errors.hpp"
#include "model/safetensors.hpp"
#include "unit/core/temporary.hpp"

#include "torch_catch.hpp"

#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

using namespace mcit;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

std::filesystem::path write(const std::string& bytes) {
  const auto file =
      std::filesystem::temp_directory_path() / ("mcit_safetensors_" + std::to_string(::getpid()));
  std::ofstream(file, std::ios::binary) << bytes;
  return file;
}

std::string with_header(const std::string& header, const std::string& data) {
  std::string out(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(out.data(), &length, 8);
  return out + header + data;
}

void refuses(const std::string& bytes, const std::string& why) {
  const auto file = write(bytes);
  INFO(why);
  CHECK_THROWS_MATCHES(read_safetensors(file), CheckpointError,
                       MessageMatches(ContainsSubstring(why) && ContainsSubstring(file.string())));
}

}  // namespace

TEST_CASE("a written file reads back, byte for byte") {
  const StateDict tensors = {{"a", at::arange(6, at::kFloat).view({2, 3})},
                             {"b", at::tensor({1.5, -2.0}, at::kDouble).to(at::kHalf)},
                             {"c", at::tensor({7}, at::kLong)},
                             {"empty", at::empty({0, 4}, at::kFloat)},
                             {"scalar", at::scalar_tensor(3.0, at::kFloat)}};
  const std::string bytes = to_safetensors(tensors, {{"k", "v"}});
  const SafetensorsFile back = read_safetensors(write(bytes));
  REQUIRE(back.tensors.size() == tensors.size());
  for (const auto& [name, tensor] : tensors) CHECK(at::equal(tensor, back.tensors.at(name)));
  CHECK(back.metadata.at("k") == "v");
  CHECK(to_safetensors(back.tensors, back.metadata) == bytes);
  const test::TemporaryFolder folder;
  write_safetensors(folder / "x.safetensors", tensors, {{"k", "v"}});
  CHECK(test::slurp(folder / "x.safetensors") == bytes);
}

TEST_CASE("hostile safetensors files are refused") {
  const std::string data(16, '\1');
  refuses("", "too short");
  refuses(std::string(8, '\xff'), "header claims");
  refuses(with_header("{", data), "not JSON");
  refuses(with_header("[]", data), "not a JSON object");
  refuses(with_header(std::string(2000, '['), data), "nested too deeply");
  refuses(with_header(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,20]}})", data),
          "outside the file");
  refuses(with_header(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[8,0]}})", data), "outside the file");
  refuses(with_header(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}})", data),
          "the shape needs 12");
  refuses(with_header(R"({"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}})", data), "non-negative");
  refuses(
      with_header(
          R"({"a":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,16]}})",
          data),
      "overflows");
  refuses(with_header(R"({"a":{"dtype":"F4","shape":[4],"data_offsets":[0,16]}})", data),
          "unknown dtype 'F4'");
  refuses(
      with_header(
          R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
          data),
      "overlaps");
  refuses(
      with_header(
          R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
          data),
      "share the same bytes");
  refuses(
      with_header(
          R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
          data),
      "twice");
  refuses(with_header(R"({"a":{"dtype":"F32"}})", data), "needs dtype, shape and data_offsets");
}
