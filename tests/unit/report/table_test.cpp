#include "report/table.hpp"

#include <catch2/catch_test_macros.hpp>
#include <stdexcept>

#include "report/document.hpp"
#include "unit/report/latex_check.hpp"

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

TEST_CASE("LaTeX: rules of booktabs, minus signs, nothing with a meaning left bare") {
  CHECK(example().latex() ==
        "\\begin{tabular}{lrr}\n\\toprule\nstrategy & ACC & BWT \\\\\n\\midrule\n"
        "ewc & \\textbf{41.20} & $-$3.5 \\\\\n"
        "größer$|$x & 9.10 & -- \\\\\n\\bottomrule\n\\end{tabular}\n");
  const std::string hostile = "\\end{tabular} & % # _ $ ^ ~ { } < > | 45.00 ± 7.07 → χ² – \n x";
  CHECK(
      latex_text(hostile) ==
      "\\textbackslash{}end\\{tabular\\} \\& \\% \\# \\_ \\$ \\textasciicircum{} \\textasciitilde{} \\{ \\} "
      "$<$ $>$ $|$ 45.00 $\\pm$ 7.07 $\\rightarrow$ $\\chi$$^2$ --   x");
  Table bracket({{"a", false}});
  bracket.row({{"[1]", false}});
  CHECK(bracket.latex().find("\n{}[1] \\\\\n") != std::string::npos);  // no argument of the rule's line
  Table table({{hostile, false}, {"b_1", true}});
  table.row({{hostile, true}, {"-1.00", true}});
  const std::string document =
      blocks_latex({{hostile, {hostile}, table, {hostile, "50 %"}}, {hostile, {hostile}, {}, {}}});
  CHECK(test::latex_fault(document) == "");
}

TEST_CASE("the LaTeX check finds what it is there for") {
  const auto broken = [](const std::string& from, const std::string& to) {
    std::string text = blocks_latex({{"a", {}, example(), {"note"}}});
    text.replace(text.find(from), from.size(), to);
    return test::latex_fault(text);
  };
  CHECK(broken("note", "note") == "");
  CHECK(broken("note", "a_b") == "a bare _");
  CHECK(broken("note", "5 %") == "a comment begins inside a line");
  CHECK(broken("note", "{note") != "");
  CHECK(broken("note", "a & b") == "& outside of a tabular");
  CHECK(broken(" & ACC", "") == "2 cells for 3 columns");
  CHECK(broken("\\end{tabular}", "") == "\\end{table} closes nothing");
  CHECK(broken("$-$3.5", "$-3.5") != "");
}

TEST_CASE("blocks: titles, sentences, tables, notes") {
  const std::vector<Block> blocks{{"One", {"two words"}, example(), {"first", "second"}},
                                  {"Two", {}, {}, {}}};
  CHECK(blocks_markdown(blocks) ==
        "## One\n\ntwo words\n\n" + example().markdown() + "\n- first\n- second\n\n## Two\n");
  CHECK(blocks_terminal(blocks, 80, false) ==
        "One\ntwo words\n\n" + example().terminal(80, false) + "\nnote: first\nnote: second\n\nTwo\n");
  CHECK(blocks_terminal({{"One", {}, {}, {"aa bb cc"}}}, 10, false) == "One\n\nnote: aa\n  bb cc\n");
}

}  // namespace
}  // namespace mcit
