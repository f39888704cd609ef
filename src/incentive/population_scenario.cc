// ParsePopulationScenario.
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "incentive/population.h"
#include "incentive/toml_fields.h"

namespace efedllm {
namespace {

constexpr uint64_t kMostMachines = 5000;
constexpr uint64_t kMostChunks = 50'000'000;
constexpr uint64_t kMillionChunks = 1'000'000;

constexpr PopulationKindInfo kKinds[] = {
    {PopulationKind::kHonest, "honest", false, false, "computes what it is given"},
    {PopulationKind::kConstant, "constant", true, true, "every chunk is wrong"},
    {PopulationKind::kRare, "rare", true, true, "every n-th chunk is wrong: every"},
    {PopulationKind::kLazy, "lazy", true, true, "a share of its chunks is made up: bad"},
    {PopulationKind::kTurncoat, "turncoat", true, true,
     "honest until trusted, and wait-chunks longer; then every n-th is wrong: every"},
    {PopulationKind::kSybil, "sybil", true, true,
     "every chunk is wrong; back with a new key after away-rounds"},
    {PopulationKind::kReturner, "returner", true, true,
     "a turncoat that comes back with a new key after away-rounds"},
    {PopulationKind::kTwins, "twins", false, false, "honest, several keys for one machine: keys"},
    {PopulationKind::kColluder, "colluder", true, true,
     "a turncoat; as a verifier it covers the others of its group"},
    {PopulationKind::kAlwaysFine, "always-fine", true, false,
     "works honestly; as a verifier it agrees with everybody"},
    {PopulationKind::kAlwaysAccuses, "always-accuses", true, false,
     "works honestly; as a verifier it accuses everybody"},
    {PopulationKind::kFlaky, "flaky", false, false, "honest, away for a share of rounds: offline"},
    {PopulationKind::kSlow, "slow", false, false, "honest, late with a share of steps: late"},
};

absl::StatusOr<PopulationGroup> ParseGroup(const TomlTable& table) {
  TomlFields fields(table);
  PopulationGroup group;
  const std::string kind = fields.Text("kind");
  group.name = fields.Text("name", kind);
  const auto* found = std::begin(kKinds);
  while (found != std::end(kKinds) && kind != found->name) ++found;
  if (found == std::end(kKinds)) {
    fields.Fail("kind",
                absl::StrCat("must be one of ",
                             absl::StrJoin(kKinds, ", ", [](std::string* out, const auto& k) {
                               absl::StrAppend(out, k.name);
                             })));
    return fields.Finish();
  }
  group.kind = found->kind;
  group.machines = static_cast<uint32_t>(fields.Integer("machines", 1, kMostMachines));
  const auto is = [&](std::initializer_list<PopulationKind> kinds) {
    return std::find(kinds.begin(), kinds.end(), group.kind) != kinds.end();
  };
  using Kind = PopulationKind;
  if (is({Kind::kRare})) group.every = fields.Integer("every", 1, kMillionChunks, 50);
  if (is({Kind::kTurncoat, Kind::kReturner, Kind::kColluder})) {
    group.every = fields.Integer("every", 1, kMillionChunks, 1);
    group.wait_chunks = fields.Integer("wait-chunks", 0, kMillionChunks, 0);
  }
  if (is({Kind::kSybil, Kind::kReturner})) {
    group.away_rounds = fields.Integer("away-rounds", 0, kMillionChunks, group.away_rounds);
  }
  if (is({Kind::kLazy})) group.bad_ppm = fields.Millionths("bad", 1, kWhole, group.bad_ppm);
  if (is({Kind::kTwins})) group.keys = fields.Integer("keys", 2, 100, group.keys);
  if (is({Kind::kFlaky})) {
    group.offline_ppm = fields.Millionths("offline", 0, kWhole, group.offline_ppm);
  }
  if (is({Kind::kSlow})) group.late_ppm = fields.Millionths("late", 0, kWhole, group.late_ppm);
  RETURN_IF_ERROR(fields.Finish());
  return group;
}

absl::Status CheckWhole(const PopulationScenario& scenario) {
  uint64_t machines = 0;
  bool honest = false;
  std::set<std::string> names;
  for (const PopulationGroup& group : scenario.groups) {
    machines += group.machines;
    honest = honest || group.kind == PopulationKind::kHonest;
    if (!names.insert(group.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("two groups have the name \"", group.name, "\""));
    }
  }
  if (!honest) {
    return absl::InvalidArgumentError(
        "no group is of kind \"honest\": there is nothing to compare the others with");
  }
  if (machines > kMostMachines) {
    return absl::InvalidArgumentError(absl::StrCat(machines, " machines; at most ", kMostMachines));
  }
  const uint64_t chunks = machines * scenario.rounds * scenario.chunks_per_round;
  if (chunks > kMostChunks) {
    return absl::InvalidArgumentError(absl::StrCat(
        chunks, " chunks in all (machines x rounds x chunks-per-round); at most ", kMostChunks));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Span<const PopulationKindInfo> PopulationKinds() { return kKinds; }

absl::StatusOr<PopulationScenario> ParsePopulationScenario(absl::string_view toml) {
  ASSIGN_OR_RETURN(const TomlDocument document, ParseToml(toml));
  PopulationScenario scenario;
  TomlFields top(document.top);
  scenario.seed = top.Integer("seed", 0, INT64_MAX, scenario.seed);
  scenario.rounds = static_cast<uint32_t>(top.Integer("rounds", 1, 100'000, scenario.rounds));
  scenario.seconds_per_round = static_cast<uint32_t>(
      top.Integer("seconds-per-round", 1, 1'000'000, scenario.seconds_per_round));
  scenario.chunks_per_round =
      static_cast<uint32_t>(top.Integer("chunks-per-round", 1, 100'000, scenario.chunks_per_round));
  scenario.tokens_per_chunk =
      static_cast<uint32_t>(top.Integer("tokens-per-chunk", 1, 64, scenario.tokens_per_chunk));
  scenario.gflops_per_chunk =
      top.Integer("gflops-per-chunk", 1, 1'000'000'000, scenario.gflops_per_chunk);
  scenario.cost_ppm = top.Millionths("cost", 0, kWhole, scenario.cost_ppm);
  scenario.peers_ppm = top.Millionths("peers", 0, kWhole, scenario.peers_ppm);
  RETURN_IF_ERROR(top.Finish());
  if (!document.tables.empty()) {
    const auto& [name, table] = *document.tables.begin();
    return absl::InvalidArgumentError(absl::StrCat("line ", table.line, ": there is no table [",
                                                   Printable(name, 64), "]; groups are [[group]]"));
  }
  for (const auto& [name, list] : document.lists) {
    if (name != "group") {
      return absl::InvalidArgumentError(absl::StrCat("line ", list.empty() ? 1 : list[0].line,
                                                     ": there is no list ", Printable(name, 64)));
    }
    for (const TomlTable& table : list) {
      ASSIGN_OR_RETURN(PopulationGroup group, ParseGroup(table));
      scenario.groups.push_back(std::move(group));
    }
  }
  RETURN_IF_ERROR(CheckWhole(scenario));
  return scenario;
}

}  // namespace efedllm
