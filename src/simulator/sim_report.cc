#include "simulator/sim_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/units.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr size_t kMostRows = 16;  // of a table

const std::string& NodeNameOf(const SimSpec& spec, size_t node) {
  return node < spec.nodes.size() ? spec.nodes[node].name : spec.coordinator.name;
}

json QuantilesJson(const Quantiles& quantiles) {
  return {{"median", quantiles.median}, {"p99", quantiles.p99}, {"max", quantiles.most}};
}

double LinkBusy(const SimResult& result, const LinkUse& link) {
  return result.seconds > 0 ? link.busy_seconds / result.seconds : 0;
}

std::string Time(double seconds) {
  return seconds < 10 ? absl::StrFormat("%.1f ms", seconds * 1e3)
                      : absl::StrFormat("%.1f s", seconds);
}

std::string Line(const char* label, const std::string& text) {
  return absl::StrFormat("%-22s %s\n", label, text);
}

std::string QuantilesText(const Quantiles& quantiles) {
  return absl::StrCat("median ", Time(quantiles.median), "   p99 ", Time(quantiles.p99), "   max ",
                      Time(quantiles.most));
}

// The largest by `less`, at most kMostRows of them.
template <class T, class Less>
std::vector<T> Largest(std::vector<T> all, Less less) {
  std::stable_sort(all.begin(), all.end(), [&](const T& a, const T& b) { return less(b, a); });
  if (all.size() > kMostRows) all.resize(kMostRows);
  return all;
}

std::string StageTable(const SimSpec& spec, const SimResult& result) {
  std::vector<StageUse> stages = result.stages;
  std::string text =
      absl::StrFormat("\n%-20s  %5s  %-11s  %6s\n", "STAGE", "CHAIN", "LAYERS", "BUSY");
  if (stages.size() > kMostRows) {
    stages = Largest(stages, [](const auto& a, const auto& b) { return a.busy < b.busy; });
  }
  for (const StageUse& stage : stages) {
    absl::StrAppendFormat(
        &text, "%-20.20s  %5d  %-11s  %5.1f%%\n", NodeNameOf(spec, stage.node), stage.chain,
        absl::StrCat("[", stage.layers.first, ",", stage.layers.last, ")"), 100 * stage.busy);
  }
  if (result.stages.size() > stages.size()) {
    absl::StrAppend(&text, "... the busiest of ", result.stages.size(), "\n");
  }
  absl::StrAppendFormat(&text, "%-20s  %5s  %-11s  %5.1f%%\n", "coordinator", "", "head",
                        100 * result.head_busy);
  return text;
}

std::string LinkTable(const SimSpec& spec, const SimResult& result) {
  const std::vector<LinkUse> links = Largest(
      result.links, [](const auto& a, const auto& b) { return a.busy_seconds < b.busy_seconds; });
  std::string text =
      absl::StrFormat("\n%-44s  %10s  %12s  %6s\n", "LINK", "BYTES", "BYTES/SECOND", "BUSY");
  for (const LinkUse& link : links) {
    const std::string name =
        absl::StrCat(NodeNameOf(spec, link.from), " -> ", NodeNameOf(spec, link.to));
    const double rate = result.seconds > 0 ? link.bytes / result.seconds : 0;
    absl::StrAppendFormat(&text, "%-44.44s  %10s  %12s  %5.1f%%\n", name,
                          FormatBytes(static_cast<uint64_t>(link.bytes)),
                          FormatBytes(static_cast<uint64_t>(rate)), 100 * LinkBusy(result, link));
  }
  if (result.links.size() > links.size()) {
    absl::StrAppend(&text, "... the busiest of ", result.links.size(), "\n");
  }
  return text;
}

}  // namespace

json SimResultJson(const SimSpec& spec, const SimResult& result) {
  json stages = json::array();
  for (const StageUse& stage : result.stages) {
    stages.push_back({{"chain", stage.chain},
                      {"node", NodeNameOf(spec, stage.node)},
                      {"first_layer", stage.layers.first},
                      {"last_layer", stage.layers.last},
                      {"busy", stage.busy}});
  }
  json links = json::array();
  for (const LinkUse& link : result.links) {
    links.push_back({{"from", NodeNameOf(spec, link.from)},
                     {"to", NodeNameOf(spec, link.to)},
                     {"messages", link.messages},
                     {"bytes", link.bytes},
                     {"busy", LinkBusy(result, link)}});
  }
  json rates = json::array();
  for (const RatePoint& point : result.rates) {
    rates.push_back({point.seconds, point.tokens_per_second});
  }
  const PlanPrediction& predicted = result.plan.prediction;
  return {{"model", spec.model.name},
          {"chains", result.plan.chains.size()},
          {"seconds", result.seconds},
          {"requests", result.requests},
          {"most_running", result.most_running},
          {"preemptions", result.preemptions},
          {"prompt_tokens", result.prompt_tokens},
          {"output_tokens", result.output_tokens},
          {"steps", result.steps},
          {"rows_per_step", result.rows_per_step},
          {"events", result.events},
          {"tokens_per_second", result.tokens_per_second},
          {"stream_tokens_per_second", result.stream_tokens_per_second},
          {"overall_tokens_per_second", result.overall_tokens_per_second},
          {"first_token_seconds", QuantilesJson(result.first_token_seconds)},
          {"inter_token_seconds", QuantilesJson(result.inter_token_seconds)},
          {"bytes", result.bytes},
          {"bytes_per_token", result.bytes_per_token},
          {"head_busy", result.head_busy},
          {"planner",
           {{"tokens_per_second", predicted.tokens_per_second},
            {"single_tokens_per_second", predicted.single_tokens_per_second},
            {"prompt_tokens_per_second", predicted.prompt_tokens_per_second}}},
          {"advice", result.advice},
          {"stages", stages},
          {"links", links},
          {"rates", rates}};
}

std::string SimResultText(const SimSpec& spec, const SimResult& result) {
  const SimModel& model = spec.model;
  std::string text = absl::StrFormat("%s: %d layers, width %d, %.2f bytes a weight\n", model.name,
                                     model.layers, model.d_model, model.bytes_per_weight);
  absl::StrAppend(
      &text,
      Line("cluster", absl::StrCat(spec.nodes.size(), " nodes, of which ", result.stages.size(),
                                   " serve in ", result.plan.chains.size(),
                                   result.plan.chains.size() == 1 ? " chain" : " chains")));
  std::string load =
      absl::StrCat(result.requests, " requests, at most ", result.most_running, " at once; ",
                   result.prompt_tokens, " prompt and ", result.output_tokens, " output tokens");
  if (result.preemptions > 0) {
    absl::StrAppend(&load, "; ", result.preemptions, " times one made room when KV ran out");
  }
  absl::StrAppend(&text, Line("load", load));
  absl::StrAppend(
      &text,
      Line("tokens/s", absl::StrFormat("%.2f together, %.2f a stream; %.2f with prompts' time",
                                       result.tokens_per_second, result.stream_tokens_per_second,
                                       result.overall_tokens_per_second)));
  absl::StrAppend(&text, Line("first token", QuantilesText(result.first_token_seconds)));
  absl::StrAppend(&text, Line("between tokens", QuantilesText(result.inter_token_seconds)));
  absl::StrAppend(&text,
                  Line("steps", absl::StrFormat("%d, of %.1f rows; %.1f s in all", result.steps,
                                                result.rows_per_step, result.seconds)));
  absl::StrAppend(
      &text,
      Line("network", absl::StrFormat("%s a token over all links, %s in all",
                                      FormatBytes(static_cast<uint64_t>(result.bytes_per_token)),
                                      FormatBytes(static_cast<uint64_t>(result.bytes)))));
  for (const std::string& advice : result.advice) absl::StrAppend(&text, Line("advice", advice));
  absl::StrAppend(&text, StageTable(spec, result), LinkTable(spec, result));
  return text;
}

}  // namespace efedllm
