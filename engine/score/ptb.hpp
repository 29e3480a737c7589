#pragma once
/// Words of captions, cut as caption metrics cut them.

#include <string>
#include <string_view>
#include <vector>

namespace mcit {

/// Lower-case tokens of Penn Treebank kind without punctuation, as pycocoevalcap's PTBTokenizer leaves them:
/// "isn't" is "is n't", "dog's" is "dog 's", "mr." keeps its stop, "t-shirt" its hyphen; brackets are
/// "-lrb-" "-rrb-" and stay (the original means to drop them, but looks for capitals). Written anew for
/// captions in English: smileys, mark-up and rare abbreviations are cut differently now and then.
std::vector<std::string> ptb_tokens(std::string_view caption);

}  // namespace mcit
