// Flower's objects and keys, without a network. tests/golden/flower_objects.py had flwr make the expected ids
// and bytes.
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "fed/flower/key.hpp"
#include "fed/flower/node.hpp"
#include "fed/flower/objects.hpp"

using namespace mcit::flower;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;

namespace {

const nlohmann::json& golden() {
  static const nlohmann::json file =
      nlohmann::json::parse(std::ifstream(MCIT_SOURCE_DIR "/tests/golden/flower_objects.json")).at("cases");
  return file;
}

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes)
    for (const int shift : {4, 0}) out += "0123456789abcdef"[(static_cast<unsigned char>(c) >> shift) & 15];
  return out;
}

/// The blob of flower_objects.py.
std::string blob(std::size_t size) {
  std::string out(size, '\0');
  for (std::size_t i = 0; i < size / 251 * 251; ++i)
    out[i] = static_cast<char>((i % 251 * (i % 251) + 7 * (i % 251)) % 251);
  return out;
}

Array array(std::string data) {
  const auto size = static_cast<std::int64_t>(data.size());
  return {"uint8", {size}, "safetensors", std::move(data)};
}

std::map<std::string, Content> contents() {
  std::map<std::string, Content> out;
  out["small"] = {{{"who",
                    {{"client", std::string("ann \u00e9\u4e2d \"q\"\n")},
                     {"examples", std::int64_t{12345678901}},
                     {"loss", -0.5},
                     {"ready", true}}}},
                  {{"model", {{"blob", array(std::string("\x00\x01\xff tiny", 8))}}}}};
  out["empty array"] = {{}, {{"model", {{"blob", array("")}}}}};
  out["no records"] = {};
  out["the same array twice"] = {{}, {{"model", {{"a", array("same")}, {"b", array("same")}}}}};
  out["chunks"] = {{}, {{"model", {{"blob", array(blob(2 * kChunk + 3))}}}}};
  out["equal chunks"] = {{}, {{"model", {{"blob", array(std::string(3 * kChunk, '\0') + "end")}}}}};
  return out;
}

/// The objects of a content as a SuperLink would keep them.
std::map<std::string, std::string> store(const Packed& packed) {
  std::map<std::string, std::string> out;
  for (const auto& piece : packed.pieces()) out[piece.id] = piece.head + std::string(piece.body);
  return out;
}

Fetch from(const std::map<std::string, std::string>& objects) {
  return [&objects](const std::string& id) { return objects.at(id); };
}

std::string object(std::string_view type, const std::vector<std::string>& children, std::string_view body) {
  return object_head(type, children, body.size()) + std::string(body);
}

}  // namespace

TEST_CASE("a content becomes the objects that flwr makes of it") {
  for (const auto& [name, content] : contents()) {
    CAPTURE(name);
    const auto& expected = golden().at(name);
    const Packed packed(content);
    CHECK(packed.root() == expected.at("id"));
    const auto objects = store(packed);
    CHECK(objects.size() == expected.at("objects").size());
    for (const auto& [id, bytes] : expected.at("objects").items()) {
      REQUIRE(objects.contains(id));
      if (bytes.is_string()) CHECK(hex(objects.at(id)) == bytes);
    }
  }
}

TEST_CASE("objects become the content again") {
  for (const auto& [name, content] : contents()) {
    CAPTURE(name);
    const Packed packed(content);
    const auto objects = store(packed);
    const Content back = unpack(packed.root(), from(objects), 1u << 30);
    CHECK(back.configs == content.configs);
    REQUIRE(back.arrays.size() == content.arrays.size());
    for (std::size_t i = 0; i < back.arrays.size(); ++i) {
      const auto &was = content.arrays[i].second, &is = back.arrays[i].second;
      REQUIRE(is.size() == was.size());
      for (std::size_t k = 0; k < is.size(); ++k) {
        CHECK(is[k].first == was[k].first);
        CHECK(is[k].second.shape == was[k].second.shape);
        CHECK(is[k].second.stype == was[k].second.stype);
        CHECK((is[k].second.data == was[k].second.data));
      }
    }
  }
}

TEST_CASE("chunks are views: packing a payload does not copy it") {
  const Content content = contents().at("chunks");
  const std::string& data = content.arrays[0].second[0].second.data;
  const Packed packed(content);
  const auto& chunk = packed.pieces().front();
  CHECK(static_cast<const void*>(chunk.body.data()) == data.data());
}

TEST_CASE("damaged and hostile objects are refused") {
  const Content content = contents().at("chunks");
  const Packed packed(content);
  const auto good = store(packed);
  SECTION("one bit of a chunk") {
    auto objects = good;
    objects.at(packed.pieces().front().id)[kChunk / 2] ^= 1;
    CHECK_THROWS_WITH(unpack(packed.root(), from(objects), 1u << 30),
                      ContainsSubstring("not those that its name says"));
  }
  SECTION("more than a message may have") {
    CHECK_THROWS_WITH(unpack(packed.root(), from(good), 2 * kChunk),
                      ContainsSubstring("more bytes than a message may have"));
    CHECK_NOTHROW(unpack(packed.root(), from(good), 2 * kChunk + 3));
  }
  const auto refused = [](const std::string& bytes) {
    std::map<std::string, std::string> objects{{object_id(bytes, {}), bytes}};
    CHECK_THROWS_AS(unpack(objects.begin()->first, from(objects), 1u << 20), Failure);
  };
  const std::string other(64, 'a');
  SECTION("heads and bodies") {
    refused("");
    refused("RecordDict");
    refused(std::string("RecordDict 2\0{}", 15));
    refused(std::string("RecordDict  3\0{}", 16));
    refused(std::string("RecordDict  -2\0{}", 17));
    refused(object("RecordDict", {"../../etc"}, "{}"));
    refused(object("RecordDict", {}, "[]"));
    refused(object("RecordDict", {}, "{\"a\": 3}"));
    refused(object("RecordDict", {}, "{\"a\": \"" + other + "\"}"));  // not its child
    refused(object("Array", {}, "{}"));
  }
  SECTION("an array that names a chunk it does not have") {
    const std::string bad =
        object("Array", {}, R"({"dtype": "u", "shape": [], "stype": "s", "arraychunk_ids": [7]})");
    const std::string id = object_id(bad, {});
    const std::string record = object("ArrayRecord", {id}, "{\"x\": \"" + id + "\"}"),
                      record_id = object_id(record, {});
    const std::string root = object("RecordDict", {record_id}, "{\"m\": \"" + record_id + "\"}");
    const std::map<std::string, std::string> objects{
        {id, bad}, {record_id, record}, {object_id(root, {}), root}};
    CHECK_THROWS_WITH(unpack(object_id(root, {}), from(objects), 1u << 20),
                      ContainsSubstring("a chunk that it does not have"));
  }
}

TEST_CASE("a key signs what its public half verifies") {
  const Key key = Key::generate();
  CHECK_THAT(key.private_pem(), StartsWith("-----BEGIN PRIVATE KEY-----\n"));
  const Key again = Key::from_pem(key.private_pem(), "key");
  CHECK(again.public_pem() == key.public_pem());
  const std::string signature = again.sign("2026-01-02T03:04:05.000006+00:00");

  const std::string pem = key.public_pem();
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
      BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> half(
      PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr), EVP_PKEY_free);
  REQUIRE(half != nullptr);
  const auto verify = [&](std::string_view text) {
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    REQUIRE(EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr, half.get()) == 1);
    return EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(signature.data()),
                            signature.size(), reinterpret_cast<const unsigned char*>(text.data()),
                            text.size()) == 1;
  };
  CHECK(verify("2026-01-02T03:04:05.000006+00:00"));
  CHECK_FALSE(verify("2026-01-02T03:04:06.000006+00:00"));
}

TEST_CASE("keys that Flower would not take say so") {
  CHECK_THROWS_WITH(Key::from_pem("nonsense", "my.key"), StartsWith("my.key: not a private key"));
  // openssl genpkey -algorithm ed25519
  CHECK_THROWS_WITH(Key::from_pem("-----BEGIN PRIVATE KEY-----\n"
                                  "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
                                  "-----END PRIVATE KEY-----\n",
                                  "my.key"),
                    ContainsSubstring("P-384"));
}

TEST_CASE("base64 as RFC 4648, section 10 has it") {
  CHECK(base64("") == "");
  CHECK(base64("f") == "Zg==");
  CHECK(base64("fo") == "Zm8=");
  CHECK(base64("foobar") == "Zm9vYmFy");
}

TEST_CASE("nothing but loopback is spoken to without TLS") {
  const Key key = Key::generate();
  for (const char* url :
       {"http://server.example:8000", "http://10.0.0.1:8000", "http://127.0.0.1.example.com",
        "ftp://127.0.0.1", "http://127.0.0.1@evil.example/"})
    CHECK_THROWS_WITH(Node({.url = url, .ca_file = {}, .client_cert = {}, .client_key = {}}, key, {}),
                      ContainsSubstring("only https leaves this machine"));
  CHECK_THROWS_AS(Node({.url = "", .ca_file = {}, .client_cert = {}, .client_key = {}}, key, {}), Failure);
  CHECK_NOTHROW(
      Node({.url = "http://127.0.0.1:1", .ca_file = {}, .client_cert = {}, .client_key = {}}, key, {}));
}

TEST_CASE("a SuperLink that is not there ends the wait with its address") {
  NodeOptions options;
  options.patience = 0.0;
  Node node({.url = "http://127.0.0.1:1", .ca_file = {}, .client_cert = {}, .client_key = {}},
            Key::generate(), options);
  CHECK_THROWS_AS(node.join(), Unreachable);
  CHECK_THROWS_WITH(node.join(), ContainsSubstring("http://127.0.0.1:1/v1/fleet/register-node"));
}
