// The rules on populations of machines that never were: honest, lazy, flaky and malicious ones over
// time. Trust, audits, verdicts, pay and penalties are the functions that the coordinator uses;
// only the machines' behaviour and the lottery's secret are made up, from a seed.
#ifndef EFEDLLM_INCENTIVE_POPULATION_H_
#define EFEDLLM_INCENTIVE_POPULATION_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "incentive/incentive_rules.h"

namespace efedllm {

enum class PopulationKind {
  kHonest,
  kConstant,       // every chunk is wrong
  kRare,           // every n-th
  kLazy,           // a share of them, at random
  kTurncoat,       // honest until it is trusted, and some time longer; then every n-th is wrong
  kSybil,          // as constant, and back with a new key after each eviction
  kReturner,       // as a turncoat, and back with a new key
  kTwins,          // honest, but several keys for one machine
  kColluder,       // as a turncoat; as a verifier it says that others of its group are right
  kAlwaysFine,     // honest work; as a verifier it computes nothing and agrees
  kAlwaysAccuses,  // honest work; as a verifier it says that everybody is wrong
  kFlaky,          // honest, and offline for a share of the rounds
  kSlow,           // honest, and late with a share of the steps
};
struct PopulationKindInfo {
  PopulationKind kind;
  const char* name;
  bool cheats;  // by its outputs or as a verifier: it must earn less than the honest
  bool bad_outputs;
  const char* help;
};
absl::Span<const PopulationKindInfo> PopulationKinds();

struct PopulationGroup {
  std::string name;
  PopulationKind kind = PopulationKind::kHonest;
  uint32_t machines = 1;
  uint64_t every = 1;          // of rare, turncoat, returner, colluder: one chunk in so many is bad
  uint64_t bad_ppm = 100'000;  // of lazy
  uint64_t wait_chunks = 0;    // that a turncoat stays honest after it is trusted
  uint64_t keys = 2;           // of twins
  uint64_t offline_ppm = 300'000;  // of flaky
  uint64_t late_ppm = 500'000;     // of slow
  uint64_t away_rounds = 1;        // until a sybil or returner is back
};

struct PopulationScenario {
  uint64_t seed = 1;
  uint32_t rounds = 400;
  uint32_t seconds_per_round = 600;
  uint32_t chunks_per_round = 40;  // that a machine can compute
  uint32_t tokens_per_chunk = 64;
  uint64_t gflops_per_chunk = 47;
  uint64_t cost_ppm = 600'000;  // what honest computing costs its owner, of its pay at factors of 1
  uint64_t peers_ppm = 500'000;  // of the audits: computed by other nodes, where one is eligible
  std::vector<PopulationGroup> groups;
};

// One of them must be honest: what the others are compared with. InvalidArgument, with the line:
// as ParseIncentiveRules; also more than 5,000 machines or 5 x 10^7 chunks in all.
absl::StatusOr<PopulationScenario> ParsePopulationScenario(absl::string_view toml);

// How long bad outputs lived: one for each key that delivered any.
struct PopulationDetection {
  uint64_t bad_chunks = 0;  // delivered until one was proven, with it
  uint64_t chunks = 0;      // all that it delivered from the first bad one on
  bool proven = false;
};

// Money in micro-credits, summed over the group.
struct PopulationGroupResult {
  PopulationGroup group;
  uint64_t keys = 0;
  uint64_t chunks = 0, bad_chunks = 0;
  uint64_t audits = 0;  // of its chunks
  uint64_t evicted_keys = 0, quarantined_keys = 0;
  int64_t posted = 0, voided = 0, penalties = 0;
  int64_t pending = 0;     // at the end
  int64_t honest_pay = 0;  // for the same chunks, at the factors it had
  double saved_cost = 0;   // of chunks that it did not compute
  std::vector<PopulationDetection> detections;
  std::vector<double> earned;   // posted - penalties, after each round, per machine, in credits
  std::vector<double> evicted;  // share of its keys so far

  int64_t earned_micros() const { return posted - penalties; }
};

struct PopulationResult {
  PopulationScenario scenario;
  IncentiveRules rules;
  std::vector<PopulationGroupResult> groups;

  double EarnedPerMachine(const PopulationGroupResult& group) const;  // credits
  double HonestPerMachine() const;                                    // of all honest machines
  // Bad chunks until one is found with 99 %, at the lowest audit rate, and if every verifier lied
  // for the group's nodes (colluders) or none did.
  uint64_t DetectionBound(const PopulationGroupResult& group) const;
  // What is not as promised, for people; empty: every cheat earned less than honest work, none was
  // worth its saved costs, and no honest node was evicted or had pay voided.
  std::vector<std::string> Problems() const;
};

// scenario and rules: valid. The same arguments give the same result, to the bit.
PopulationResult SimulatePopulation(const PopulationScenario& scenario,
                                    const IncentiveRules& rules);

std::string PopulationText(const PopulationResult& result);
nlohmann::json PopulationJson(const PopulationResult& result);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_POPULATION_H_
