// What a population came to: for checks, for people and for programs.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "incentive/penalty.h"
#include "incentive/population.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr double kMicrosPerCredit = 1e6;
constexpr double kConfidence = 0.99;

const PopulationKindInfo& InfoOf(const PopulationGroup& group) {
  return PopulationKinds()[static_cast<size_t>(group.kind)];
}

double Share(uint64_t ppm) { return static_cast<double>(ppm) / static_cast<double>(kWhole); }

// What it got out of lying, against honest work on the same chunks: pay, and costs that it saved.
double Advantage(const PopulationGroupResult& group) {
  return (static_cast<double>(group.earned_micros() + group.pending - group.honest_pay) +
          group.saved_cost) /
         kMicrosPerCredit / static_cast<double>(group.group.machines);
}

struct DetectionSummary {
  uint64_t keys = 0, proven = 0, within = 0;
  uint64_t median_bad = 0, worst_bad = 0, worst_chunks = 0;
};

// Of keys that delivered bad chunks; those that were not found (yet) count as long as they lived.
DetectionSummary Summarize(const PopulationGroupResult& group, uint64_t bound) {
  DetectionSummary summary;
  std::vector<uint64_t> bad;
  for (const PopulationDetection& detection : group.detections) {
    bad.push_back(detection.bad_chunks);
    summary.proven += detection.proven ? 1 : 0;
    summary.within += detection.bad_chunks <= bound ? 1 : 0;
    summary.worst_chunks = std::max(summary.worst_chunks, detection.chunks);
  }
  summary.keys = bad.size();
  if (bad.empty()) return summary;
  std::sort(bad.begin(), bad.end());
  summary.median_bad = bad[bad.size() / 2];
  summary.worst_bad = bad.back();
  return summary;
}

// So many of n within the bound that one in a hundred misses would be bad luck of one in a million.
bool EnoughWithin(const DetectionSummary& summary) {
  const auto n = static_cast<double>(summary.keys);
  const double misses = n - static_cast<double>(summary.within);
  const double expected = n * (1 - kConfidence);
  return misses <= expected + 5 * std::sqrt(expected) + 1;
}

void CheckCheat(const PopulationResult& result, const PopulationGroupResult& group,
                std::vector<std::string>& problems) {
  const double earned = result.EarnedPerMachine(group);
  if (earned >= result.HonestPerMachine()) {
    problems.push_back(absl::StrFormat("%s earned %.2f a machine, as much as honest work",
                                       group.group.name, earned));
  }
  if (!InfoOf(group.group).bad_outputs || group.bad_chunks == 0) return;
  if (Advantage(group) >= 0) {
    problems.push_back(absl::StrFormat(
        "%s gained %.2f a machine over honest work on the same chunks, with what it saved",
        group.group.name, Advantage(group)));
  }
  const uint64_t bound = result.DetectionBound(group);
  const DetectionSummary summary = Summarize(group, bound);
  if (!EnoughWithin(summary)) {
    problems.push_back(absl::StrFormat("%s: only %d of %d keys were found within %d bad chunks",
                                       group.group.name, summary.within, summary.keys, bound));
  }
}

json GroupJson(const PopulationResult& result, const PopulationGroupResult& group) {
  const uint64_t bound = result.DetectionBound(group);
  const DetectionSummary summary = Summarize(group, bound);
  return {{"name", group.group.name},
          {"kind", InfoOf(group.group).name},
          {"machines", group.group.machines},
          {"keys", group.keys},
          {"chunks", group.chunks},
          {"bad_chunks", group.bad_chunks},
          {"audits", group.audits},
          {"evicted_keys", group.evicted_keys},
          {"quarantined_keys", group.quarantined_keys},
          {"posted_micros", group.posted},
          {"voided_micros", group.voided},
          {"penalty_micros", group.penalties},
          {"pending_micros", group.pending},
          {"earned_credits_per_machine", result.EarnedPerMachine(group)},
          {"advantage_credits_per_machine", Advantage(group)},
          {"keys_with_bad_chunks", summary.keys},
          {"keys_proven", summary.proven},
          {"bad_chunks_until_found_median", summary.median_bad},
          {"bad_chunks_until_found_most", summary.worst_bad},
          {"bad_chunks_bound_99", bound},
          {"keys_within_bound", summary.within},
          {"chunks_from_first_bad_most", summary.worst_chunks},
          {"earned_credits_per_machine_by_round", group.earned},
          {"evicted_share_by_round", group.evicted}};
}

}  // namespace

double PopulationResult::EarnedPerMachine(const PopulationGroupResult& group) const {
  return static_cast<double>(group.earned_micros()) / kMicrosPerCredit /
         static_cast<double>(group.group.machines);
}

double PopulationResult::HonestPerMachine() const {
  double earned = 0, machines = 0;
  for (const PopulationGroupResult& group : groups) {
    if (group.group.kind != PopulationKind::kHonest) continue;
    earned += static_cast<double>(group.earned_micros()) / kMicrosPerCredit;
    machines += group.group.machines;
  }
  return earned / std::max(machines, 1.0);
}

uint64_t PopulationResult::DetectionBound(const PopulationGroupResult& group) const {
  const bool covered = group.group.kind == PopulationKind::kColluder;
  // Of the audits that others do, all may be done by colluders.
  const double by_peers = covered ? Share(scenario.peers_ppm) : 0;
  const double detection = 1 - by_peers + by_peers * Share(rules.audit_recheck_ppm);
  return BadChunksUntilFound(Share(rules.audit_floor_ppm), detection, kConfidence);
}

std::vector<std::string> PopulationResult::Problems() const {
  std::vector<std::string> problems;
  for (const PopulationGroupResult& group : groups) {
    const PopulationKindInfo& info = InfoOf(group.group);
    if (info.cheats) {
      CheckCheat(*this, group, problems);
    } else if (group.evicted_keys + group.quarantined_keys > 0 || group.voided != 0) {
      problems.push_back(absl::StrFormat("%s is honest, but %d keys were put out and %.2f voided",
                                         group.group.name,
                                         group.evicted_keys + group.quarantined_keys,
                                         static_cast<double>(group.voided) / kMicrosPerCredit));
    }
  }
  return problems;
}

std::string PopulationText(const PopulationResult& result) {
  const PopulationScenario& scenario = result.scenario;
  const double days = static_cast<double>(scenario.rounds) * scenario.seconds_per_round / 86'400;
  std::string text = absl::StrFormat(
      "seed %d, %d rounds of %d s (%.1f days), rules of version %d: floor of audits %g %%, checked "
      "answers %g %%\n\n",
      scenario.seed, scenario.rounds, scenario.seconds_per_round, days, result.rules.version,
      100 * Share(result.rules.audit_floor_ppm), 100 * Share(result.rules.audit_recheck_ppm));
  absl::StrAppendFormat(&text, "%-16s %8s %5s %9s %8s %7s  %-22s %8s %10s %8s %11s\n", "group",
                        "machines", "keys", "chunks", "bad", "audited", "bad until proven",
                        "evicted", "earned", "of", "advantage");
  absl::StrAppendFormat(&text, "%-16s %8s %5s %9s %8s %7s  %-22s %8s %10s %8s %11s\n", "", "", "",
                        "", "", "%", "median/most (99 %)", "keys", "a machine", "honest",
                        "of lies");
  const double honest = result.HonestPerMachine();
  for (const PopulationGroupResult& group : result.groups) {
    const uint64_t bound = result.DetectionBound(group);
    const DetectionSummary summary = Summarize(group, bound);
    const std::string found = summary.keys == 0 ? "-"
                                                : absl::StrFormat("%d/%d (%d)", summary.median_bad,
                                                                  summary.worst_bad, bound);
    const double earned = result.EarnedPerMachine(group);
    absl::StrAppendFormat(&text, "%-16s %8d %5d %9d %8d %7.1f  %-22s %8d %10.2f %6.1f %% %11s\n",
                          group.group.name, group.group.machines, group.keys, group.chunks,
                          group.bad_chunks,
                          100.0 * static_cast<double>(group.audits) /
                              static_cast<double>(std::max<uint64_t>(group.chunks, 1)),
                          found, group.evicted_keys, earned, honest > 0 ? 100 * earned / honest : 0,
                          group.bad_chunks == 0 ? "-" : absl::StrFormat("%.2f", Advantage(group)));
  }
  const std::vector<std::string> problems = result.Problems();
  text +=
      problems.empty()
          ? "\nEvery kind of cheat earned less than honest work, and no honest node was put out.\n"
          : "\n";
  for (const std::string& problem : problems)
    absl::StrAppend(&text, "NOT AS PROMISED: ", problem, "\n");
  return text;
}

json PopulationJson(const PopulationResult& result) {
  json groups = json::array();
  for (const PopulationGroupResult& group : result.groups) {
    groups.push_back(GroupJson(result, group));
  }
  return {{"seed", result.scenario.seed},
          {"rounds", result.scenario.rounds},
          {"seconds_per_round", result.scenario.seconds_per_round},
          {"rules_version", result.rules.version},
          {"rules_digest", ToHex(IncentiveRulesDigest(result.rules))},
          {"honest_credits_per_machine", result.HonestPerMachine()},
          {"problems", result.Problems()},
          {"groups", std::move(groups)}};
}

}  // namespace efedllm
