// Which finished chunks are computed again, by whom, and what the answers say. Randomness comes in
// as a secret that nodes can't know, and that is revealed later, so that everybody can check that
// the lottery was fair.
#ifndef EFEDLLM_INCENTIVE_AUDIT_POLICY_H_
#define EFEDLLM_INCENTIVE_AUDIT_POLICY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/ids.h"
#include "common/sha256.h"
#include "incentive/incentive_rules.h"
#include "incentive/trust.h"

namespace efedllm {

// 1 on probation. Of a trusted node with the lower bound L of honesty, and T the bound to be
// trusted: floor + (1 - floor) ((1 - L) / (1 - T))^2, at most 1: it leaves probation with nearly 1
// and falls to the floor as the doubt goes. Of others, who get no work: 1 (what is open still).
uint64_t AuditRatePpm(const IncentiveRules& rules, const TrustRecord& record);

// Fresh for every day or restart; its commitment goes into the ledger before it is used, the secret
// itself after its last use.
using LotterySecret = std::array<uint8_t, 32>;
Sha256Digest LotteryCommitment(const LotterySecret& secret);

// What is drawn for. A chunk has one number for each purpose.
enum class LotteryPurpose : uint8_t {
  kAudit = 1,     // is it audited?
  kVerifier = 2,  // by whom?
  kSecond = 3,    // and by whom again?
  kRecheck = 4,   // does the coordinator check the answer?
  kPlanted = 5,   // is a challenge like it planted?
};
struct ChunkTicket {
  NodeId node;
  Epoch epoch;
  uint64_t receipt = 0;  // its number
  uint32_t chunk = 0;    // index within it
  Sha256Digest outputs = {};
};
// Uniform over all numbers for who doesn't know the secret: the first eight bytes of the SHA-256 of
// "eFedLLM lottery 1\n", the secret, the purpose and the ticket, all of fixed sizes.
uint64_t Draw(const LotterySecret& secret, LotteryPurpose purpose, const ChunkTicket& ticket);
// With probability share_ppm / 10^6; always from 10^6 on.
bool Wins(uint64_t draw, uint64_t share_ppm);

// A node that could verify.
struct VerifierCandidate {
  NodeId node;
  std::string owner;
  bool holds_layers = false;   // all of the stage's
  bool same_numerics = false;  // as the audited receipt's manifest has it
  TrustState state = TrustState::kProbation;
};
// An index of candidates; nullopt: the coordinator computes it itself. Only trusted nodes that hold
// the layers, of an owner not in excluded_owners (the audited node's, and that of a verifier who
// answered already) are eligible. Owners draw first and nodes within them, so that an owner gains
// no chances with more keys.
std::optional<size_t> ChooseVerifier(absl::Span<const VerifierCandidate> candidates,
                                     absl::Span<const std::string> excluded_owners, uint64_t draw);

// How much an audit finds at least, in millionths: all if the coordinator computes it, else what it
// checks of the answers, as if every verifier lied for the node.
uint64_t DetectionPpm(const IncentiveRules& rules, bool by_coordinator);

// --- Verdicts ---

// What is known of one audited chunk so far. Digests of its outputs; verifiers commit to theirs
// before they see any other. None is trusted but the coordinator's own, and that only where two
// computations agree.
struct AuditCase {
  Sha256Digest claimed = {};                  // signed in the node's receipt
  std::optional<Sha256Digest> first, second;  // verifiers'
  // The coordinator's: repeated only where it contradicts the claim.
  std::optional<Sha256Digest> coordinator, coordinator_again;
  bool recheck = false;  // drawn: the coordinator computes it whatever the verifier says
};

enum class AuditStep {
  kAskFirst,          // a verifier, or the coordinator if none is eligible
  kAskSecond,         // another owner's, or the coordinator at once if none is eligible
  kAskCoordinator,    // it decides
  kCoordinatorAgain,  // it contradicts the claim: before anybody is accused, once more
  kDone,
};
struct AuditVerdict {
  enum class Node {
    kOpen,
    kHonest,
    kLied,
    // The coordinator's computations contradict each other: its machine is at fault, nobody else.
    kUndecidable,
  };
  enum class Verifier { kNone, kRight, kLied, kUnchecked };

  AuditStep next = AuditStep::kDone;
  Node node = Node::kOpen;  // open until next is kDone
  Verifier first = Verifier::kNone, second = Verifier::kNone;
};
// second_available: is there an eligible second verifier?
AuditVerdict JudgeAudit(const AuditCase& audit, bool second_available);
absl::string_view AuditNodeVerdictName(AuditVerdict::Node verdict);

// An answer to a planted challenge, whose right digest is known from two computations.
AuditVerdict::Verifier JudgePlanted(const Sha256Digest& right, const Sha256Digest& answer);

// --- What becomes of pending pay ---

struct PendingChunk {
  bool picked = false;    // by the lottery, or on probation
  bool verified = false;  // audited without a fault
  bool disproved = false;
  bool disputed = false;      // a neighbour claims other bytes, and nothing has decided yet
  bool away = false;          // picked, but its node went away with what would show it
  int64_t age_seconds = 0;    // since its receipt
  uint64_t later_chunks = 0;  // that the node delivered since
};
enum class PayDecision { kWait, kPost, kVoid };
// Void if disproved, or unverified work of an evicted node; waits while its audit is open, its node
// is in quarantine, or its escrow is not over; then void if it is disputed still, and posted else.
// What a node that went away did not show is posted if the node is trusted again by then and its
// escrow is over, and void at the end of the longest escrow: nobody gains by going away when an
// audit comes.
PayDecision DecidePay(const IncentiveRules& rules, const PendingChunk& chunk, TrustState state);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_AUDIT_POLICY_H_
