#include "fed/flower/objects.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "fleet.pb.h"

namespace mcit::flower {

Failure::~Failure() = default;
Unreachable::~Unreachable() = default;
Refused::~Refused() = default;

namespace {

constexpr std::size_t kMostChildren = 1u << 20;  // of one object: 5 TiB in chunks

bool is_id(std::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

[[noreturn]] void malformed(const std::string& id, const std::string& what) {
  throw Failure("object " + id.substr(0, 12) + ": " + what);
}

/// As Python's json.dumps writes it, so that ids agree with those that flwr computes itself.
std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}
std::string references(const std::vector<std::pair<std::string, std::string>>& named) {
  std::string out = "{";
  for (const auto& [name, id] : named)
    out += (out.size() > 1 ? ", " : "") + quoted(name) + ": \"" + id + "\"";
  return out + "}";
}
template <class Number>
std::string listed(const std::vector<Number>& numbers) {
  std::string out = "[";
  for (const Number n : numbers) out += (out.size() > 1 ? ", " : "") + std::to_string(n);
  return out + "]";
}

/// Each id once, in the order of first use.
std::vector<std::string> distinct(const std::vector<std::pair<std::string, std::string>>& named) {
  std::vector<std::string> out;
  for (const auto& entry : named)
    if (std::find(out.begin(), out.end(), entry.second) == out.end()) out.push_back(entry.second);
  return out;
}

std::string body_of(const ConfigRecord& record) {
  flwr::proto::ConfigRecord out;
  for (const auto& [key, value] : record) {
    auto* item = out.add_items();
    item->set_key(key);
    auto* to = item->mutable_value();
    if (const auto* flag = std::get_if<bool>(&value)) to->set_bool_(*flag);
    if (const auto* whole = std::get_if<std::int64_t>(&value)) to->set_sint64(*whole);
    if (const auto* number = std::get_if<double>(&value)) to->set_double_(*number);
    if (const auto* text = std::get_if<std::string>(&value)) to->set_string(*text);
  }
  return out.SerializeAsString();
}

ConfigRecord config_of(const Object& object, const std::string& id) {
  flwr::proto::ConfigRecord in;
  if (!in.ParseFromArray(object.body.data(), static_cast<int>(object.body.size())))
    malformed(id, "not a ConfigRecord");
  using Kind = flwr::proto::ConfigRecordValue;
  ConfigRecord out;
  for (const auto& item : in.items()) {
    const Kind& value = item.value();
    switch (value.value_case()) {
      case Kind::kBool:
        out.emplace_back(item.key(), value.bool_());
        break;
      case Kind::kSint64:
        out.emplace_back(item.key(), static_cast<std::int64_t>(value.sint64()));
        break;
      case Kind::kUint64:
        out.emplace_back(item.key(), static_cast<std::int64_t>(value.uint64()));
        break;
      case Kind::kDouble:
        out.emplace_back(item.key(), value.double_());
        break;
      case Kind::kString:
        out.emplace_back(item.key(), value.string());
        break;
      case Kind::kBytes:
        out.emplace_back(item.key(), value.bytes());
        break;
      case Kind::VALUE_NOT_SET:
        break;  // a list: nothing here has a use for one
    }
  }
  return out;
}

nlohmann::ordered_json json_of(const Object& object, const std::string& id) {
  auto value = nlohmann::ordered_json::parse(object.body, nullptr, false);
  if (!value.is_object()) malformed(id, "its body is not a JSON object");
  return value;
}

/// name -> id, as RecordDict and ArrayRecord have it; every id must be a child.
std::vector<std::pair<std::string, std::string>> references_of(const Object& object, const std::string& id) {
  const std::set<std::string_view> children(object.children.begin(), object.children.end());
  std::vector<std::pair<std::string, std::string>> out;
  const auto body = json_of(object, id);
  for (const auto& [name, value] : body.items()) {
    if (!value.is_string()) malformed(id, "'" + name + "' does not name an object");
    out.emplace_back(name, value.get<std::string>());
    if (!children.contains(out.back().second))
      malformed(id, "'" + name + "' names an object that is not its child");
  }
  return out;
}

Array array_of(const std::string& id, const Fetch& fetch, std::uint64_t& left) {
  const std::string bytes = fetch(id);
  const Object object = read_object(bytes, id);
  if (object.type != "Array") malformed(id, "an Array was expected, not a " + object.type);
  Array out;
  std::vector<std::size_t> order;
  try {
    const auto body = json_of(object, id);
    body.at("dtype").get_to(out.dtype);
    body.at("shape").get_to(out.shape);
    body.at("stype").get_to(out.stype);
    body.at("arraychunk_ids").get_to(order);
  } catch (const nlohmann::json::exception&) {
    malformed(id, "not the body of an Array");
  }
  if (order.size() > kMostChildren) malformed(id, "too many chunks");
  for (const std::size_t index : order) {
    if (index >= object.children.size()) malformed(id, "names a chunk that it does not have");
    const std::string& child = object.children[index];
    const std::string chunk = fetch(child);
    const Object piece = read_object(chunk, child);
    if (piece.type != "ArrayChunk") malformed(child, "an ArrayChunk was expected, not a " + piece.type);
    if (piece.body.size() > left) malformed(id, "more bytes than a message may have");
    left -= piece.body.size();
    out.data += piece.body;
  }
  return out;
}

}  // namespace

std::string object_id(std::string_view head, std::string_view body) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  if (!context || EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) != 1 ||
      EVP_DigestUpdate(context.get(), head.data(), head.size()) != 1 ||
      EVP_DigestUpdate(context.get(), body.data(), body.size()) != 1 ||
      EVP_DigestFinal_ex(context.get(), digest, &length) != 1)
    throw Failure("SHA-256: OpenSSL has failed");
  std::string out;
  for (unsigned i = 0; i < length; ++i) {
    out += "0123456789abcdef"[digest[i] >> 4];
    out += "0123456789abcdef"[digest[i] & 15];
  }
  return out;
}

std::string object_head(std::string_view type, const std::vector<std::string>& children, std::size_t body) {
  std::string out(type);
  out += ' ';
  for (std::size_t i = 0; i < children.size(); ++i) out += (i > 0 ? "," : "") + children[i];
  out += ' ' + std::to_string(body);
  out += '\0';
  return out;
}

Object read_object(std::string_view bytes, const std::string& id) {
  if (object_id(bytes, {}) != id) malformed(id, "its bytes are not those that its name says");
  const std::size_t end = bytes.find('\0');
  if (end == std::string_view::npos) malformed(id, "no head");
  const std::string_view head = bytes.substr(0, end);
  const std::size_t first = head.find(' '), last = head.rfind(' ');
  if (first == std::string_view::npos || first == last) malformed(id, "its head has not three parts");
  Object out;
  out.type = head.substr(0, first);
  out.body = bytes.substr(end + 1);
  std::size_t length = 0;
  const std::string_view digits = head.substr(last + 1);
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (error != std::errc() || stop != digits.data() + digits.size() || length != out.body.size())
    malformed(id, "its body is not as long as its head says");
  std::string_view rest = head.substr(first + 1, last - first - 1);
  while (!rest.empty()) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    if (!is_id(rest.substr(0, comma)) || out.children.size() == kMostChildren)
      malformed(id, "its head names children that cannot be");
    out.children.emplace_back(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return out;
}

Packed::Packed(const Content& content) {
  std::vector<std::pair<std::string, std::string>> records;
  for (const auto& [name, record] : content.configs)
    records.emplace_back(name, add("ConfigRecord", {}, body_of(record)));
  for (const auto& [name, record] : content.arrays) {
    std::vector<std::pair<std::string, std::string>> arrays;
    for (const auto& [key, value] : record) arrays.emplace_back(key, array(value));
    records.emplace_back(name, add("ArrayRecord", distinct(arrays), references(arrays)));
  }
  add("RecordDict", distinct(records), references(records));
}

std::string Packed::array(const Array& array) {
  std::vector<std::string> children;
  std::map<std::string, std::size_t> places;
  std::vector<std::size_t> order;
  const std::string_view data = array.data;
  for (std::size_t at = 0; at < data.size(); at += kChunk) {
    const std::string id = view("ArrayChunk", {}, data.substr(at, kChunk));
    const auto [place, fresh] = places.emplace(id, children.size());
    if (fresh) children.push_back(id);
    order.push_back(place->second);
  }
  return add("Array", children,
             "{\"dtype\": " + quoted(array.dtype) + ", \"shape\": " + listed(array.shape) +
                 ", \"stype\": " + quoted(array.stype) + ", \"arraychunk_ids\": " + listed(order) + "}");
}

const std::string& Packed::add(std::string_view type, std::vector<std::string> children, std::string body) {
  bodies_.push_back(std::move(body));
  return view(type, std::move(children), bodies_.back());
}

const std::string& Packed::view(std::string_view type, std::vector<std::string> children,
                                std::string_view body) {
  Piece piece{{}, object_head(type, children, body.size()), body, std::move(children)};
  piece.id = object_id(piece.head, body);
  const auto [place, fresh] = known_.emplace(piece.id, pieces_.size());
  if (fresh) pieces_.push_back(std::move(piece));
  root_ = pieces_[place->second].id;
  return pieces_[place->second].id;
}

const Packed::Piece& Packed::at(const std::string& id) const {
  const auto found = known_.find(id);
  if (found == known_.end()) malformed(id, "is asked for, and belongs to another message");
  return pieces_[found->second];
}

Content unpack(const std::string& record_dict, const Fetch& fetch, std::uint64_t limit) {
  const std::string bytes = fetch(record_dict);
  const Object root = read_object(bytes, record_dict);
  if (root.type != "RecordDict") malformed(record_dict, "a RecordDict was expected, not a " + root.type);
  Content out;
  for (const auto& [name, id] : references_of(root, record_dict)) {
    const std::string record = fetch(id);
    const Object object = read_object(record, id);
    if (object.type == "ConfigRecord") out.configs.emplace_back(name, config_of(object, id));
    if (object.type != "ArrayRecord") continue;
    ArrayRecord arrays;
    for (const auto& [key, array] : references_of(object, id))
      arrays.emplace_back(key, array_of(array, fetch, limit));
    out.arrays.emplace_back(name, std::move(arrays));
  }
  return out;
}

}  // namespace mcit::flower
