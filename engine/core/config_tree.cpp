#include "core/config_tree.hpp"

#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit::tree {
namespace {

bool is_bare(std::string_view key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.append({'\\', c});
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      constexpr std::string_view kDigits = "0123456789ABCDEF";
      out.append("\\u00").append({kDigits[byte >> 4], kDigits[byte & 15U]});
    } else {
      out.push_back(c);
    }
  }
  return out + '"';
}

std::string key_text(std::string_view key) { return is_bare(key) ? std::string(key) : toml_string(key); }

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string out = shortest(value);
  if (out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}

Entry convert(const toml::node& node, const Origin& origin, const std::string& path);

Table convert_table(const toml::table& table, const Origin& origin, const std::string& path) {
  auto made = std::make_shared<Node>();
  made->path = path;
  made->source = origin.source;
  made->folder = origin.folder;
  made->line = origin.source == kOverride ? 0 : static_cast<int>(table.source().begin.line);
  for (const auto& [key, child] : table)
    made->given.emplace(std::string(key.str()), convert(child, origin, joined(path, key.str())));
  return made;
}

Entry convert(const toml::node& node, const Origin& origin, const std::string& path) {
  Entry entry{false, origin.source, origin.folder, static_cast<int>(node.source().begin.line)};
  if (origin.source == kOverride) entry.line = 0;
  if (const auto* flag = node.as_boolean()) {
    entry.value = flag->get();
  } else if (const auto* whole = node.as_integer()) {
    entry.value = whole->get();
  } else if (const auto* real = node.as_floating_point()) {
    entry.value = real->get();
  } else if (const auto* text = node.as_string()) {
    entry.value = text->get();
  } else if (const auto* table = node.as_table()) {
    entry.value = convert_table(*table, origin, path);
  } else if (const auto* array = node.as_array()) {
    Array items;
    for (const toml::node& item : *array)
      items.push_back(convert(item, origin, path + "." + std::to_string(items.size())));
    entry.value = std::move(items);
  } else {  // dates and times are texts to us
    std::ostringstream out;
    node.visit([&](const auto& any) {
      if constexpr (toml::is_chronological<decltype(any)>) out << any.get();
    });
    entry.value = out.str();
  }
  return entry;
}

}  // namespace

std::string Node::where(std::string_view key) const {
  const auto found = given.find(std::string(key));
  const std::string& from = found == given.end() ? source : found->second.source;
  const int at = found == given.end() ? (key.empty() ? line : 0) : found->second.line;
  const std::string name = key.empty() ? path : joined(path, key);
  const std::string place = at > 0 ? from + ":" + std::to_string(at) : from;
  return name.empty() ? place : place + ": " + name;
}

const Entry* Node::find(std::string_view key) {
  const std::string name(key);
  asked.insert(name);
  const auto found = given.find(name);
  return found == given.end() ? nullptr : &found->second;
}

void Node::answer(std::string_view key, Value value) {
  effective[std::string(key)] = {std::move(value), source, folder, 0};
}

std::string joined(std::string_view path, std::string_view key) {
  return path.empty() ? key_text(key) : std::string(path) + "." + key_text(key);
}

std::string value_text(const Value& value) {
  struct Printer {
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(std::int64_t v) const { return std::to_string(v); }
    std::string operator()(double v) const { return number_text(v); }
    std::string operator()(const std::string& v) const { return toml_string(v); }
    std::string operator()(const Array& v) const {
      std::string out = "[";
      for (const Entry& item : v) out.append(out.size() > 1 ? ", " : "").append(value_text(item.value));
      return out + "]";
    }
    std::string operator()(const Table& v) const {
      std::string out = "{";
      for (const auto& [key, item] : v->given)
        out.append(out.size() > 1 ? ", " : " ")
            .append(key_text(key))
            .append(" = ")
            .append(value_text(item.value));
      return out + " }";
    }
  };
  return std::visit(Printer{}, value);
}

bool is_tables(const Value& value) {
  const auto* array = std::get_if<Array>(&value);
  return array != nullptr && !array->empty() && std::all_of(array->begin(), array->end(), [](const Entry& e) {
           return std::holds_alternative<Table>(e.value);
         });
}

/// Values first, then tables, under full headers: `name` is the header of this table.
void print(const Node& node, const std::string& name, std::string& out) {
  std::map<std::string, const Entry*> all;
  for (const auto& [key, entry] : node.given) all[key] = &entry;
  for (const auto& [key, entry] : node.effective) all[key] = &entry;
  for (const auto& [key, entry] : all)
    if (!std::holds_alternative<Table>(entry->value) && !is_tables(entry->value))
      out += key_text(key) + " = " + value_text(entry->value) + '\n';
  const auto section = [&out](const Table& table, const std::string& path, const char* open,
                              const char* close) {
    out.append(out.empty() ? "" : "\n").append(open).append(path).append(close).append("\n");
    print(*table, path, out);
  };
  for (const auto& [key, entry] : all) {
    const std::string path = joined(name, key);
    if (const auto* table = std::get_if<Table>(&entry->value)) {
      section(*table, path, "[", "]");
    } else if (is_tables(entry->value)) {
      for (const Entry& item : std::get<Array>(entry->value))
        section(std::get<Table>(item.value), path, "[[", "]]");
    }
  }
}

void collect(const Node& node, const std::string& name, std::map<std::string, std::string>& all) {
  for (const auto& [key, entry] : node.given) {
    const std::string path = joined(name, key);
    if (const auto* table = std::get_if<Table>(&entry.value)) {
      collect(**table, path, all);
    } else if (is_tables(entry.value)) {
      std::size_t index = 0;
      for (const Entry& item : std::get<Array>(entry.value))
        collect(*std::get<Table>(item.value), path + "." + std::to_string(index++), all);
    } else {
      all[path] = value_text(entry.value);
    }
  }
}

Table parse(std::string_view text, const Origin& origin) {
  try {
    Table table = convert_table(toml::parse(text, origin.source), origin, {});
    table->line = 0;
    return table;
  } catch (const toml::parse_error& error) {
    throw ConfigError(origin.source + ":" + std::to_string(error.source().begin.line),
                      "not TOML: " + std::string(error.description()));
  }
}

Entry parse_override(std::string_view text, const std::string& path) {
  const Origin origin{std::string(kOverride), {}};
  try {
    const toml::table table = toml::parse("value = " + std::string(text));
    if (table.size() == 1) return convert(*table.get("value"), origin, path);
  } catch (const toml::parse_error&) {  // a bare word
  }
  return {std::string(text), origin.source, {}, 0};
}

}  // namespace mcit::tree
