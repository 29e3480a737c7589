#include "report/table.hpp"

#include <catch2/catch_test_macros.hpp>
#include <stdexcept>

namespace mcit {
namespace {

Table example() {
  Table table({{"strategy", false}, {"ACC", true}, {"BWT", true}});
  table.row({{"ewc", false}, {"41.20", true}, {"-3.5", false}});
  table.row({{"größer|x", false}, {"9.10", false}, {"–", false}});
  return table;
}

TEST_CASE("columns are aligned by what is seen, not by bytes") {
  CHECK(example().terminal(80, false) ==
        "strategy    ACC   BWT\n"
        "ewc       41.20  -3.5\n"
        "größer|x   9.10     –\n");
}

TEST_CASE("colour marks titles and best values only") {
  CHECK(example().terminal(80, true) ==
        "\x1b[1mstrategy    ACC   BWT\x1b[0m\n"
        "ewc       \x1b[1m41.20\x1b[0m  -3.5\n"
        "größer|x   9.10     –\n");
}

TEST_CASE("what is too wide goes on below, with the first column again") {
  CHECK(example().terminal(16, false) ==
        "strategy    ACC\n"
        "ewc       41.20\n"
        "größer|x   9.10\n"
        "\n"
        "strategy   BWT\n"
        "ewc       -3.5\n"
        "größer|x     –\n");
  CHECK(example().terminal(1, false) ==
        example().terminal(16, false));  // never less than one column beside the first
}

TEST_CASE("Markdown and CSV escape their own marks") {
  CHECK(example().markdown() ==
        "| strategy | ACC | BWT |\n"
        "|---|---:|---:|\n"
        "| ewc | **41.20** | -3.5 |\n"
        "| größer\\|x | 9.10 | – |\n");
  Table table({{"a,b", false}});
  table.row({{"say \"hi\"", true}});
  CHECK(table.csv() == "\"a,b\"\n\"say \"\"hi\"\"\"\n");
}

TEST_CASE("a row has one cell for each column") {
  Table table({{"a"}, {"b"}});
  CHECK_THROWS_AS(table.row({{"1", false}}), std::invalid_argument);
  CHECK(table.rows() == 0);
  CHECK(Table({{"only", false}}).terminal(80, false) == "only\n");
  CHECK(Table({}).terminal(80, false).empty());
}

}  // namespace
}  // namespace mcit
