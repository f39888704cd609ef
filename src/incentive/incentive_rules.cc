#include "incentive/incentive_rules.h"

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/file.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "incentive/penalty.h"
#include "incentive/toml_fields.h"

namespace efedllm {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 10;

using Rules = IncentiveRules;

constexpr uint64_t kMostMicrosPerTflop = 1'000'000'000;
constexpr uint64_t kHundredYearsInHours = 876'000;

constexpr IncentiveRuleField kFields[] = {
    {"", "version", &Rules::version, false, 1, INT32_MAX,
     "Raise it with every change: the ledger takes no other rules under a version that it has "
     "seen, and\n"
     "none of a lower one."},

    {"pricing", "price-micros-per-tflop", &Rules::price_micros_per_tflop, false, 0,
     kMostMicrosPerTflop,
     "Micro-credits that a node earns for 10^12 floating-point operations of the dense reference "
     "model, at\n"
     "factors of 1."},
    {"pricing", "charge-micros-per-tflop", &Rules::charge_micros_per_tflop, false, 0,
     kMostMicrosPerTflop, "Micro-credits that an API key is charged for the same work."},
    {"pricing", "promptness-least", &Rules::promptness_least_ppm, true, 0, kWhole,
     "Pay is multiplied by the share of a node's steps that came in time, from here to 1."},
    {"pricing", "availability-least", &Rules::availability_least_ppm, true, 0, kWhole,
     "And by the share of the time in which it was there, from here to 1."},
    {"pricing", "scarcity-most", &Rules::scarcity_most_ppm, true, kWhole, 4 * kWhole,
     "And by up to this for layers that only one owner's nodes hold, falling to 1 where so many "
     "owners do."},
    {"pricing", "scarcity-holders", &Rules::scarcity_holders, false, 1, 1000, nullptr},

    {"trust", "quantile", &Rules::quantile_ppm, true, 1000, 500'000,
     "Trust is this quantile of the Beta distribution that the evidence gives: what is very likely "
     "exceeded."},
    {"trust", "trusted-at", &Rules::trusted_at_ppm, true, 500'000, 999'000,
     "A node is trusted when that of its honesty is so high and it has had so many chunks audited "
     "without\n"
     "a fault; below the third number it is on probation again."},
    {"trust", "probation-chunks", &Rules::probation_chunks, false, 1, 1'000'000, nullptr},
    {"trust", "probation-again-below", &Rules::probation_again_ppm, true, 0, 999'000, nullptr},
    {"trust", "honesty-half-life-hours", &Rules::honesty_half_life_hours, false, 1,
     kHundredYearsInHours, "Evidence counts half after so long."},
    {"trust", "reliability-half-life-hours", &Rules::reliability_half_life_hours, false, 1,
     kHundredYearsInHours, nullptr},
    {"trust", "reliability-prior", &Rules::reliability_prior, false, 1, 1000,
     "A new node is taken to have answered so many steps in time, and one late."},
    {"trust", "dispute-peers", &Rules::dispute_peers, false, 2, 1000,
     "Quarantine: disputes over the bytes of an edge, undecidable ones, with so many different "
     "neighbours."},
    {"trust", "withheld-audits", &Rules::withheld_audits, false, 1, 1000,
     "Quarantine: audits for which a node that never went away did not deliver the bytes it must "
     "keep."},
    {"trust", "verifier-faults", &Rules::verifier_faults, false, 1, 1000,
     "Eviction: audits of others in which its answer was proven wrong. (Of its own work, one is "
     "enough.)"},

    {"audit", "floor", &Rules::audit_floor_ppm, true, 1000, kWhole,
     "Share of the chunks of a long proven node that are audited. Of a newcomer all are; between "
     "the two it\n"
     "falls with the doubt that is left."},
    {"audit", "recheck", &Rules::audit_recheck_ppm, true, 10'000, kWhole,
     "Share of other nodes' answers to audits that the coordinator computes itself as well."},
    {"audit", "planted", &Rules::audit_planted_ppm, true, 0, 500'000,
     "Share of the challenges to verifiers whose right answer is not what was claimed, and known."},

    {"penalty", "margin", &Rules::penalty_margin_ppm, true, kWhole, 100 * kWhole,
     "A chunk that was proven wrong costs its pay times (1 - p d) / (p d), where p is the audit "
     "rate that\n"
     "was in force and d the chance that an audit finds the fault, times this margin; ..."},
    {"penalty", "least", &Rules::penalty_least_ppm, true, 0, 1000 * kWhole,
     "... and at least its pay times this."},

    {"escrow", "seconds", &Rules::escrow_seconds, false, 0, 31'536'000,
     "Pay is posted when no audit of the chunk is open, so many seconds have passed, and the node "
     "has\n"
     "delivered so many chunks since (or the longest time has passed). What is in escrow is lost "
     "by a lie."},
    {"escrow", "chunks", &Rules::escrow_chunks, false, 0, 1'000'000, nullptr},
    {"escrow", "longest-hours", &Rules::escrow_longest_hours, false, 1, kHundredYearsInHours,
     nullptr},
};

std::string PlaceOf(const IncentiveRuleField& field) {
  return *field.table == 0 ? field.key : absl::StrCat(field.table, ".", field.key);
}

// The shortest decimal number, such that TOML reads a float.
std::string ShareText(uint64_t ppm) {
  std::string text = absl::StrFormat("%d.%06d", ppm / kWhole, ppm % kWhole);
  while (text.back() == '0' && text[text.size() - 2] != '.') text.pop_back();
  return text;
}

std::string ValueText(const IncentiveRules& rules, const IncentiveRuleField& field) {
  const uint64_t value = rules.*field.value;
  return field.share ? ShareText(value) : absl::StrCat(value);
}

absl::Status CheckTables(const TomlDocument& document) {
  std::set<std::string> known;
  for (const IncentiveRuleField& field : kFields) known.insert(field.table);
  for (const auto& [name, table] : document.tables) {
    if (known.count(name) != 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("line ", table.line, ": there is no table [", Printable(name, 64), "]"));
  }
  if (document.lists.empty()) return absl::OkStatus();
  const auto& [name, list] = *document.lists.begin();
  return absl::InvalidArgumentError(absl::StrCat("line ", list.empty() ? 1 : list.front().line,
                                                 ": ", Printable(name, 64), " must not be a list"));
}

}  // namespace

absl::Span<const IncentiveRuleField> IncentiveRuleFields() { return kFields; }

absl::StatusOr<IncentiveRules> ParseIncentiveRules(absl::string_view toml) {
  ASSIGN_OR_RETURN(const TomlDocument document, ParseToml(toml));
  RETURN_IF_ERROR(CheckTables(document));
  std::map<std::string, TomlFields> tables;
  tables.emplace("", document.top);
  for (const auto& [name, table] : document.tables) tables.emplace(name, table);
  IncentiveRules rules;
  for (const IncentiveRuleField& field : kFields) {
    const auto table = tables.find(field.table);
    if (table == tables.end()) continue;
    uint64_t& value = rules.*field.value;
    value = field.share ? table->second.Millionths(field.key, field.least, field.most, value)
                        : table->second.Integer(field.key, field.least, field.most, value);
  }
  for (auto& [name, table] : tables) RETURN_IF_ERROR(table.Finish());
  RETURN_IF_ERROR(ValidateIncentiveRules(rules));
  return rules;
}

absl::StatusOr<IncentiveRules> ReadIncentiveRules(const std::string& path) {
  if (path.empty()) return IncentiveRules();
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  absl::StatusOr<IncentiveRules> rules = ParseIncentiveRules(text);
  if (rules.ok()) return rules;
  return absl::Status(rules.status().code(), absl::StrCat(path, ": ", rules.status().message()));
}

absl::Status ValidateIncentiveRules(const IncentiveRules& rules) {
  for (const IncentiveRuleField& field : kFields) {
    const uint64_t value = rules.*field.value;
    if (value >= field.least && value <= field.most) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(PlaceOf(field), " is ", ValueText(rules, field), ", out of its range"));
  }
  if (rules.probation_again_ppm >= rules.trusted_at_ppm) {
    return absl::InvalidArgumentError(
        "trust.probation-again-below must be less than trust.trusted-at");
  }
  const uint64_t multiple_ppm =
      PenaltyMultiplePpm(rules, rules.audit_floor_ppm, rules.audit_recheck_ppm);
  const uint64_t chunks = (multiple_ppm + kWhole - 1) / kWhole;
  if (rules.escrow_chunks < chunks) {
    return absl::InvalidArgumentError(
        absl::StrCat("escrow.chunks is ", rules.escrow_chunks,
                     ", but at audit.floor and audit.recheck a lie costs ", chunks,
                     " chunks' pay, and so many must be in escrow: raise one of the three"));
  }
  return absl::OkStatus();
}

std::string IncentiveRulesToml(const IncentiveRules& rules, bool commented_out) {
  std::string toml;
  if (commented_out) {
    toml =
        "# efedllm-coord --incentive-rules incentive.toml\n"
        "# The rules of rewards, trust and audits, each with its default; uncomment what you "
        "change, and raise the version.\n"
        "# `efedllm-ctl incentive rules --file incentive.toml` checks them, and `efedllm-ctl "
        "incentive simulate` shows what they do.\n";
  }
  std::string table;
  for (const IncentiveRuleField& field : kFields) {
    if (field.table != table) absl::StrAppend(&toml, "\n[", table = field.table, "]\n");
    if (commented_out && field.help != nullptr) {
      if (!absl::EndsWith(toml, "]\n")) toml += "\n";
      for (const absl::string_view line : absl::StrSplit(field.help, '\n')) {
        absl::StrAppend(&toml, "# ", line, "\n");
      }
    }
    absl::StrAppend(&toml, commented_out ? "# " : "", field.key, " = ", ValueText(rules, field),
                    "\n");
  }
  return toml;
}

std::string CanonicalIncentiveRules(const IncentiveRules& rules) {
  std::string text = "efedllm-incentive-rules=1\n";
  for (const IncentiveRuleField& field : kFields) {
    absl::StrAppend(&text, PlaceOf(field), "=", rules.*field.value, "\n");
  }
  return text;
}

Sha256Digest IncentiveRulesDigest(const IncentiveRules& rules) {
  const std::string text = CanonicalIncentiveRules(rules);
  return Sha256({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

absl::StatusOr<IncentiveRules> ParseCanonicalIncentiveRules(absl::string_view text) {
  if (text.size() > 16 << 10) return absl::DataLossError("rules of more than 16 KiB");
  std::map<absl::string_view, uint64_t> values;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits('=', 1));
    uint64_t value = 0;
    if (!absl::SimpleAtoi(parts.second, &value)) {
      return absl::DataLossError(absl::StrCat("rules: not a number: ", Printable(line)));
    }
    values[parts.first] = value;
  }
  IncentiveRules rules;
  for (const IncentiveRuleField& field : kFields) {
    const auto found = values.find(PlaceOf(field));
    if (found != values.end()) rules.*field.value = found->second;
  }
  // Written by other rules of writing: nothing is guessed.
  if (CanonicalIncentiveRules(rules) != text) {
    return absl::DataLossError("rules: not the canonical text of this program's rules");
  }
  if (const absl::Status valid = ValidateIncentiveRules(rules); !valid.ok()) {
    return absl::DataLossError(valid.message());
  }
  return rules;
}

absl::Status CheckIncentiveRulesSuccessor(const IncentiveRules& current,
                                          const IncentiveRules& next) {
  if (next == current || next.version > current.version) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the ledger has incentive rules of version ", current.version,
                   "; changed rules must have a higher one: set version = ", current.version + 1));
}

}  // namespace efedllm
