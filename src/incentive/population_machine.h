// One machine of a population, with the key that it works under. Only for population.cc.
#ifndef EFEDLLM_INCENTIVE_POPULATION_MACHINE_H_
#define EFEDLLM_INCENTIVE_POPULATION_MACHINE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "common/ids.h"
#include "common/random.h"
#include "common/sha256.h"
#include "incentive/audit_policy.h"
#include "incentive/population.h"
#include "incentive/rewards.h"
#include "incentive/trust.h"

namespace efedllm {

struct PopulationPay {
  int64_t micros = 0;
  uint64_t audit_ppm = 0, detection_ppm = 0;
  int64_t unix_seconds = 0;
  uint64_t number = 0;  // of the key's chunks
  bool picked = false, verified = false, disproved = false;
};

// A key. Sybils leave theirs behind.
struct PopulationKey {
  NodeId node;
  std::string owner;  // one per machine
  TrustRecord trust;
  uint64_t chunks = 0;
  uint64_t trusted_chunks = 0;  // since it was trusted first
  std::deque<PopulationPay> pending;
  int64_t balance = 0;  // posted and not taken by penalties
  PopulationDetection detection;
  bool audits_others = true;  // it may be asked
};

// Is the next chunk of this key wrong? Counts it.
bool DeliversBadChunk(const PopulationGroup& group, PopulationKey& key, Random& random);

// Digests stand for outputs: what is right, what a bad chunk claims, and what an accuser makes up.
Sha256Digest RightOutputs();
Sha256Digest BadOutputs();

// What a verifier of this group answers, asked about a chunk whose right digest is `right` and of
// which it has been told, by its friends or by guessing, that `claimed` was claimed. of_its_own: by
// a node of its own group.
Sha256Digest VerifierAnswer(const PopulationGroup& group, const Sha256Digest& claimed,
                            const Sha256Digest& right, bool of_its_own);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_POPULATION_MACHINE_H_
