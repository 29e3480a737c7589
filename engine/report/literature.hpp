#pragma once
/// Published tables as they were printed, each for itself, with what they were made under.

#include <string>
#include <vector>

#include "core/json.hpp"
#include "metrics/published.hpp"
#include "report/document.hpp"

namespace mcit {

/// First what holds for all of them: the order of tasks, notes, what the arithmetic check found, methods that
/// have several numbers. Then a block for each table: numbers of two sources never share a column.
std::vector<Block> literature_blocks(const Published& published);
/// Long form, one value a line: published,table,method,evidence,column,value.
std::string literature_csv(const Published& published);
Json literature_json(const Published& published);

/// "backbone LLaVA-1.5-7B, rank 128", in the catalogue's order, without those that `beside` has as well.
std::string conditions_text(const Conditions& conditions, const Conditions& beside = {});

}  // namespace mcit
