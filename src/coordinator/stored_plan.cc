#include "coordinator/stored_plan.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "net/credentials.h"

namespace efedllm {
namespace {

// Far beyond any cluster: what a damaged file may make us read.
constexpr int64_t kMaxStages = 4096;
constexpr int64_t kMaxNodes = 4096;

absl::Status Damaged(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("the stored plan is damaged: ", what));
}

// An integer of [least, most]; anything else is damage.
absl::StatusOr<int64_t> Integer(const SqlValue& value, int64_t least, int64_t most,
                                absl::string_view what) {
  const auto* integer = std::get_if<int64_t>(&value);
  if (integer == nullptr || *integer < least || *integer > most) return Damaged(what);
  return *integer;
}

absl::StatusOr<double> Rate(const SqlValue& value) {
  const auto* number = std::get_if<double>(&value);
  if (number == nullptr || !std::isfinite(*number) || *number < 0) return Damaged("a rate");
  return *number;
}

absl::StatusOr<NodeId> Worker(const SqlValue& value) {
  const std::optional<NodeId> node = ParseNodeName(SqlText(value));
  if (!node || *node == kCoordinatorNode) return Damaged("a node's id");
  return *node;
}

// A plan that its stages can't contradict.
absl::Status Check(const StoredPlan& stored) {
  if (stored.epoch.v == 0 || stored.plan.epoch != stored.epoch) return Damaged("its epoch");
  const std::set<NodeId> known(stored.nodes.begin(), stored.nodes.end());
  if (known.size() != stored.nodes.size()) return Damaged("a node stands in it twice");
  if (stored.plan.chains.empty()) return Damaged("it has no chain");
  std::set<NodeId> holders;
  for (const Chain& chain : stored.plan.chains) {
    if (chain.stages.empty() || chain.kv_tokens == 0) return Damaged("a chain holds nothing");
    uint32_t next = 0;
    for (const Stage& stage : chain.stages) {
      if (stage.layers.first != next || stage.layers.last <= next) return Damaged("its layers");
      next = stage.layers.last;
      if (!known.contains(stage.node)) return Damaged("a stage's node is not among its nodes");
      if (!holders.insert(stage.node).second) return Damaged("a node has two stages");
    }
    const Chain& first = stored.plan.chains.front();
    if (next != first.stages.back().layers.last) return Damaged("its chains differ in layers");
  }
  return absl::OkStatus();
}

absl::Status ReadStages(const std::vector<SqlRow>& rows, StagePlan& plan) {
  constexpr int64_t kMostLayers = std::numeric_limits<uint32_t>::max();
  for (const SqlRow& row : rows) {
    const auto chains = static_cast<int64_t>(plan.chains.size());
    ASSIGN_OR_RETURN(const int64_t chain,
                     Integer(row[0], std::max<int64_t>(chains - 1, 0), chains, "its chains"));
    ASSIGN_OR_RETURN(const int64_t kv_tokens,
                     Integer(row[6], 1, std::numeric_limits<int64_t>::max(), "its KV"));
    if (chain == chains) plan.chains.push_back({{}, static_cast<uint64_t>(kv_tokens)});
    Chain& present = plan.chains.back();
    const auto position = static_cast<int64_t>(present.stages.size());
    RETURN_IF_ERROR(Integer(row[1], position, position, "the order of its stages").status());
    if (static_cast<uint64_t>(kv_tokens) != present.kv_tokens) return Damaged("its KV");
    Stage& stage = present.stages.emplace_back();
    ASSIGN_OR_RETURN(stage.node, Worker(row[2]));
    ASSIGN_OR_RETURN(const int64_t first, Integer(row[3], 0, kMostLayers, "its layers"));
    ASSIGN_OR_RETURN(const int64_t last, Integer(row[4], 0, kMostLayers, "its layers"));
    stage.layers = {static_cast<uint32_t>(first), static_cast<uint32_t>(last)};
    ASSIGN_OR_RETURN(const int64_t relayed, Integer(row[5], 0, 1, "an edge"));
    stage.relayed = relayed != 0;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<StoredPlan>> Read(Transaction& sql) {
  ASSIGN_OR_RETURN(
      const std::vector<SqlRow> head,
      sql.Query("SELECT stored_plan.epoch, tokens_per_second, single_tokens_per_second, "
                "prompt_tokens_per_second, last_epoch.epoch "
                "FROM stored_plan, last_epoch"));
  if (head.empty()) return std::nullopt;
  ASSIGN_OR_RETURN(const std::vector<SqlRow> stages,
                   sql.Query("SELECT chain, position, node, first_layer, last_layer, relayed, "
                             "kv_tokens FROM stored_stages ORDER BY chain, position LIMIT ?",
                             {kMaxStages}));
  ASSIGN_OR_RETURN(
      const std::vector<SqlRow> nodes,
      sql.Query("SELECT node FROM stored_nodes ORDER BY position LIMIT ?", {kMaxNodes}));
  StoredPlan stored;
  // An epoch that was never given out can't have served.
  ASSIGN_OR_RETURN(const int64_t epoch, Integer(head[0][0], 1, SqlInt(head[0][4]), "its epoch"));
  stored.epoch.v = static_cast<uint64_t>(epoch);
  stored.plan.epoch = stored.epoch;
  PlanPrediction& prediction = stored.plan.prediction;
  ASSIGN_OR_RETURN(prediction.tokens_per_second, Rate(head[0][1]));
  ASSIGN_OR_RETURN(prediction.single_tokens_per_second, Rate(head[0][2]));
  ASSIGN_OR_RETURN(prediction.prompt_tokens_per_second, Rate(head[0][3]));
  RETURN_IF_ERROR(ReadStages(stages, stored.plan));
  for (const SqlRow& row : nodes) {
    ASSIGN_OR_RETURN(const NodeId node, Worker(row[0]));
    stored.nodes.push_back(node);
  }
  RETURN_IF_ERROR(Check(stored));
  return stored;
}

absl::Status Write(Transaction& sql, const StoredPlan& stored) {
  for (const char* table : {"stored_plan", "stored_stages", "stored_nodes"}) {
    RETURN_IF_ERROR(sql.Execute(absl::StrCat("DELETE FROM ", table)).status());
  }
  const PlanPrediction& prediction = stored.plan.prediction;
  RETURN_IF_ERROR(
      sql.Execute("INSERT INTO stored_plan VALUES (1, ?, ?, ?, ?)",
                  {static_cast<int64_t>(stored.epoch.v), prediction.tokens_per_second,
                   prediction.single_tokens_per_second, prediction.prompt_tokens_per_second})
          .status());
  for (size_t c = 0; c < stored.plan.chains.size(); ++c) {
    const Chain& chain = stored.plan.chains[c];
    for (size_t i = 0; i < chain.stages.size(); ++i) {
      const Stage& stage = chain.stages[i];
      RETURN_IF_ERROR(
          sql.Execute("INSERT INTO stored_stages VALUES (?, ?, ?, ?, ?, ?, ?)",
                      {static_cast<int64_t>(c), static_cast<int64_t>(i), NodeName(stage.node),
                       int64_t{stage.layers.first}, int64_t{stage.layers.last},
                       int64_t{stage.relayed}, static_cast<int64_t>(chain.kv_tokens)})
              .status());
    }
  }
  for (size_t i = 0; i < stored.nodes.size(); ++i) {
    RETURN_IF_ERROR(sql.Execute("INSERT INTO stored_nodes VALUES (?, ?)",
                                {static_cast<int64_t>(i), NodeName(stored.nodes[i])})
                        .status());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SavePlan(Database& database, const StoredPlan& stored) {
  const absl::Status checked = Check(stored);
  if (!checked.ok()) return absl::InvalidArgumentError(checked.message());
  return database.Transact([&](Transaction& sql) { return Write(sql, stored); });
}

absl::StatusOr<std::optional<StoredPlan>> LoadPlan(Database& database) {
  std::optional<StoredPlan> stored;
  const absl::Status read = database.Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(stored, Read(sql));
    return absl::OkStatus();
  });
  if (absl::IsDataLoss(read)) {
    spdlog::error("{}; planning anew", std::string(read.message()));
    return std::nullopt;
  }
  RETURN_IF_ERROR(read);
  return stored;
}

}  // namespace efedllm
