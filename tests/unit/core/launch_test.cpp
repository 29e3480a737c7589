// How a process finds out that it is one of a group: the variables that torchrun sets (PyTorch's
// documentation of torch.distributed.run) and those that srun sets (Slurm's manual of srun, output
// environment variables).
#include "core/launch.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <map>

#include "mcit/errors.hpp"

namespace mcit::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Variables = std::map<std::string, std::string>;

Launch launch(const Variables& variables) {
  return Launch::read([&](const char* name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

Variables with(Variables variables, const Variables& more) {
  for (const auto& [name, value] : more) variables[name] = value;
  return variables;
}

const Variables kTorchrun = {{"RANK", "5"},
                             {"WORLD_SIZE", "8"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "4"},
                             {"MASTER_ADDR", "node1"},
                             {"MASTER_PORT", "29400"},
                             {"TORCHELASTIC_RESTART_COUNT", "2"},
                             {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
const Variables kSlurm = {
    {"SLURM_STEP_ID", "0"},           {"SLURM_PROCID", "3"},       {"SLURM_NTASKS", "4"},
    {"SLURM_LOCALID", "1"},           {"MASTER_ADDR", "10.0.0.1"}, {"MASTER_PORT", "29500"},
    {"SLURM_TASKS_PER_NODE", "2(x2)"}};

}  // namespace

TEST_CASE("without variables a process is alone") {
  const Launch one = launch({});
  CHECK(one.alone());
  CHECK(one.rank == 0);
  CHECK(launch({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).alone());
  // A batch script has srun's variables but for the step's; srun of several runs has no address.
  Variables script = kSlurm, several = kSlurm;
  script.erase("SLURM_STEP_ID");
  several.erase("MASTER_ADDR");
  CHECK(launch(script).alone());
  CHECK(launch(several).alone());
}

TEST_CASE("torchrun's variables") {
  const Launch l = launch(kTorchrun);
  CHECK(l.rank == 5);
  CHECK(l.size == 8);
  CHECK(l.local_rank == 1);
  CHECK(l.local_size == 4);
  CHECK(l.address == "node1");
  CHECK(l.port == 29400);
  CHECK(l.agent_store);
  CHECK(l.restart == 2);
}

TEST_CASE("by hand, all processes are on one machine unless LOCAL_RANK says otherwise") {
  const Launch l =
      launch({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "4000"}});
  CHECK(l.local_rank == 1);
  CHECK(l.local_size == 2);
  CHECK_FALSE(l.agent_store);
  CHECK(l.restart == 0);
}

TEST_CASE("Slurm's variables") {
  const Launch l = launch(kSlurm);
  CHECK(l.rank == 3);
  CHECK(l.size == 4);
  CHECK(l.local_rank == 1);
  CHECK(l.local_size == 2);
  CHECK(l.port == 29500);
  CHECK(launch(with(kSlurm, {{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_WORLD_SIZE", "2"}})).size == 2);
}

TEST_CASE("variables that make no sense are named") {
  const auto fails = [](const Variables& variables, const std::string& name) {
    INFO(name);
    CHECK_THROWS_MATCHES(launch(variables), ConfigError, MessageMatches(ContainsSubstring(name)));
  };
  fails({{"RANK", "0"}}, "RANK: is set without WORLD_SIZE");
  fails({{"WORLD_SIZE", "2"}}, "WORLD_SIZE: is set without RANK");
  fails(with(kTorchrun, {{"RANK", "8"}}), "RANK: is 8 in a group of 8");
  fails(with(kTorchrun, {{"RANK", "-1"}}), "RANK: is '-1'");
  fails(with(kTorchrun, {{"WORLD_SIZE", "two"}}), "WORLD_SIZE: is 'two'");
  fails(with(kTorchrun, {{"WORLD_SIZE", "0"}}), "WORLD_SIZE: is '0'");
  fails(with(kTorchrun, {{"LOCAL_RANK", "4"}}), "LOCAL_RANK");
  fails(with(kTorchrun, {{"MASTER_PORT", "70000"}}), "MASTER_PORT: is '70000'");
  fails(with(kTorchrun, {{"MASTER_PORT", ""}}), "MASTER_PORT: is not set");
  fails(with(kTorchrun, {{"MASTER_ADDR", ""}}), "MASTER_ADDR: is not set");
  fails(with(kSlurm, {{"SLURM_NTASKS", "4x"}}), "SLURM_NTASKS: is '4x'");
}

}  // namespace mcit::test
