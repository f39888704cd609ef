// TrustRecord as JSON, for the state file and for people.
#include <utility>

#include "absl/strings/str_cat.h"
#include "incentive/trust.h"

namespace efedllm {
namespace {

using nlohmann::json;

json ToJson(const BetaEvidence& evidence) {
  return {{"good", evidence.good}, {"bad", evidence.bad}};
}

bool Read(const json& json, BetaEvidence& evidence) {
  evidence = {json.at("good").get<double>(), json.at("bad").get<double>()};
  return evidence.good >= 0 && evidence.good <= kMostEvidence && evidence.bad >= 0 &&
         evidence.bad <= kMostEvidence;
}

bool Read(const json& json, std::vector<Dispute>& disputes) {
  for (const auto& item : json) {
    const std::optional<NodeId> peer = ParseNodeName(item.at("peer").get<std::string>());
    if (!peer) return false;
    disputes.push_back({*peer, item.at("unix_seconds").get<int64_t>()});
  }
  return true;
}

// Throws what the library throws of missing keys and other types.
bool Read(const json& json, TrustRecord& record) {
  const std::optional<TrustState> state = ParseTrustState(json.at("state").get<std::string>());
  if (!state) return false;
  record.state = *state;
  record.unix_seconds = json.at("unix_seconds").get<int64_t>();
  record.clean_chunks = json.at("clean_chunks").get<double>();
  record.withheld = json.at("withheld").get<double>();
  record.verifier_lies = json.at("verifier_lies").get<uint64_t>();
  record.lies = json.at("lies").get<uint64_t>();
  record.pardons = json.at("pardons").get<uint64_t>();
  record.fault = json.at("fault").get<bool>();
  record.evidence = json.at("evidence").get<std::string>();
  return Read(json.at("honesty"), record.honesty) &&
         Read(json.at("availability"), record.availability) &&
         Read(json.at("promptness"), record.promptness) &&
         Read(json.at("disputes"), record.disputes) && record.clean_chunks >= 0 &&
         record.withheld >= 0 && record.withheld <= kMostEvidence;
}

}  // namespace

json TrustToJson(const TrustRecord& record) {
  json disputes = json::array();
  for (const Dispute& dispute : record.disputes) {
    disputes.push_back({{"peer", NodeName(dispute.peer)}, {"unix_seconds", dispute.unix_seconds}});
  }
  return {{"state", std::string(TrustStateName(record.state))},
          {"honesty", ToJson(record.honesty)},
          {"availability", ToJson(record.availability)},
          {"promptness", ToJson(record.promptness)},
          {"unix_seconds", record.unix_seconds},
          {"clean_chunks", record.clean_chunks},
          {"withheld", record.withheld},
          {"verifier_lies", record.verifier_lies},
          {"lies", record.lies},
          {"pardons", record.pardons},
          {"fault", record.fault},
          {"disputes", std::move(disputes)},
          {"evidence", record.evidence}};
}

absl::StatusOr<TrustRecord> TrustFromJson(const json& json) {
  TrustRecord record;
  try {
    if (Read(json, record)) return record;
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat("trust: ", error.what()));
  }
  return absl::DataLossError("trust: a value is out of its range");
}

}  // namespace efedllm
