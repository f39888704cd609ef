// An entry of the ledger: what it says, when it is sound by itself, and the bytes that are hashed.
// Pure. docs/ledger.md says what every kind means.
#ifndef EFEDLLM_INCENTIVE_LEDGER_ENTRY_H_
#define EFEDLLM_INCENTIVE_LEDGER_ENTRY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/ids.h"
#include "common/sha256.h"

namespace efedllm {

// The numbers are in files and hashes: never changed, only added to.
enum class EntryKind : uint32_t {
  kOpening = 1,     // the first entry: which ledger this is
  kPending = 2,     // work that was done and is not proven yet: issuer -> escrow of the node
  kPost = 3,        // proven: escrow -> the node
  kVoid = 4,        // disproven: escrow -> issuer, and perhaps a penalty: the node -> penalty
  kPenalty = 5,     // without work of its own: the node -> penalty
  kSettlement = 6,  // what nodes have goes to their owner
  kUsage = 7,       // what the holder of an API key asked for
  // From here on without money: their postings are of 0, and say whom they are about.
  kOwner = 8,      // a node belongs to an owner from now on
  kRules = 9,      // another version of the rules is in force
  kTrust = 10,     // a node was admitted, quarantined, evicted, pardoned ...
  kEvidence = 11,  // the hash of what proves something
};
// "pending"; "kind 77" for what is no kind.
std::string KindName(EntryKind kind);
std::optional<EntryKind> ParseKind(absl::string_view name);

// Accounts: "issuer" (all money comes from it: its balance is what is out, negated), "penalty",
// and one of each kind for every node, owner and API key.
inline constexpr char kIssuerAccount[] = "issuer";
inline constexpr char kPenaltyAccount[] = "penalty";
std::string EscrowAccount(NodeId node);  // escrow:<node>, what is pending
std::string NodeAccount(NodeId node);    // node:<node>, what is posted; negative: it owes
std::string OwnerAccount(absl::string_view owner);
std::string ApiKeyAccount(absl::string_view api_key_id);
// Escrow and penalty never are.
bool MayBeNegative(absl::string_view account);

// 10^-6 credits.
using Micros = int64_t;

struct Posting {
  std::string account;
  Micros amount = 0;

  friend bool operator==(const Posting&, const Posting&) = default;
};

struct Entry {
  // The idempotency key: whoever says the same again says it with the same key.
  std::string key;
  EntryKind kind = EntryKind::kEvidence;
  int64_t time_micros = 0;  // since 1970, when it was written
  std::string about;  // of a post or a void: the pending entry's key; else what it is about, or ""
  std::vector<Posting> postings;  // sum to zero; by account, each once
  uint64_t tokens = 0;            // that this is about
  uint64_t flops = 0;             // of the dense reference model
  std::string memo;               // a JSON object with all that led to it, or ""

  friend bool operator==(const Entry&, const Entry&) = default;
};

// Whether a retry says the same: in all but its time.
bool SaysTheSame(const Entry& a, const Entry& b);

inline constexpr size_t kMaxEntryKey = 200;        // printable ASCII without spaces
inline constexpr size_t kMaxEntryMemo = 16 << 10;  // of UTF-8
inline constexpr size_t kMaxEntryPostings = 64;
inline constexpr size_t kMaxAccountName = 160;                // UTF-8 without control characters
inline constexpr Micros kMaxPosting = 1'000'000'000'000'000;  // a billion credits

// Puts the postings in order.
void Normalize(Entry& entry);

// Sound by itself: bounds, zero sum, the postings that its kind has. InvalidArgument says what
// is not.
absl::Status CheckEntry(const Entry& entry);
// Its memo is a JSON object, and its names are UTF-8; checked once, when it is written.
absl::Status CheckText(const Entry& entry);

// Work that is neither posted nor voided.
struct PendingWork {
  std::string key;  // of its entry
  NodeId node;
  Micros amount = 0;
  uint64_t tokens = 0;
  uint64_t flops = 0;
  int64_t time_micros = 0;

  friend bool operator==(const PendingWork&, const PendingWork&) = default;
};

Entry PendingEntry(const PendingWork& work, std::string memo);
Entry PostEntry(const PendingWork& work, int64_t time_micros);
// penalty: 0 for a loss without blame.
Entry VoidEntry(const PendingWork& work, Micros penalty, int64_t time_micros, std::string memo);
// node belongs to owner from this time on.
Entry OwnerEntry(NodeId node, absl::string_view owner, int64_t time_micros);
// A post or a void resolves exactly its work. FailedPrecondition says what differs.
absl::Status CheckResolves(const Entry& entry, const PendingWork& work);
// The work of an entry that CheckEntry takes and whose kind is kPending.
PendingWork WorkOf(const Entry& pending);

// What is hashed: a line that says what it is, the entry's number in the ledger (from 1), and every
// field in order of declaration; integers are little-endian, texts have their length before them.
std::string CanonicalBytes(const Entry& entry, uint64_t number);
// SHA-256(previous, bytes): the hash of the chain and leaf of the tree. Before the first: zeros.
Sha256Digest ChainHash(const Sha256Digest& previous, absl::string_view canonical_bytes);

// An entry in its place.
struct RecordedEntry {
  uint64_t number = 0;
  Entry entry;
  Sha256Digest hash = {};

  friend bool operator==(const RecordedEntry&, const RecordedEntry&) = default;
};

// "12.345678".
std::string FormatCredits(Micros amount);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_LEDGER_ENTRY_H_
