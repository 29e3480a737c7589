#pragma once
/// One adapter on each of many sites, handled as one thing.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "mcit/backbone.hpp"
#include "mcit/parts/state_reader.hpp"

namespace mcit::parts {

class MCIT_EXPORT AdapterSet {
 public:
  using Factory = std::function<AdapterPtr(const Site&)>;
  struct Entry {
    Site* site;
    std::string adapter_name;
    AdapterPtr adapter;
  };

  /// Puts factory(site) on each site of `pattern`, in the order of Backbone::sites().
  /// @throws ConfigError when the pattern matches nothing; Error when this set holds an adapter of the site
  /// already
  void attach(Backbone& backbone, std::string_view pattern, const std::string& adapter_name,
              const Factory& factory);

  void set_trainable(bool trainable);
  void set_active(bool active);  ///< inactive adapters keep their tensors and leave the output alone

  /// Named "<site>.<local name>".
  Parameters parameters() const;
  StateDict state() const;
  void load(StateReader& reader) const;
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

}  // namespace mcit::parts
