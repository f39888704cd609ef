// What becomes of pending pay, and how it gets into the ledger.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "coordinator/contribution_book.h"
#include "incentive/audit_policy.h"
#include "incentive/penalty.h"
#include "incentive/settlement.h"

namespace efedllm {
namespace {

// Evidence that fades or grows is written so often; a change of state at once.
constexpr absl::Duration kTrustInterval = absl::Minutes(1);
// Of what API keys used, all requests together.
constexpr absl::Duration kUsageInterval = absl::Minutes(1);
// Entries that may wait for a disk that is full, before no more work is taken.
constexpr size_t kMostUnwritten = 4096;

}  // namespace

Entry ContributionBook::Resolution(const Pending& pending, PayDecision decision,
                                   absl::Time now) const {
  const int64_t micros = absl::ToUnixMicros(now);
  if (decision == PayDecision::kPost) return PostEntry(pending.work, micros);
  const auto has = [&](Chunk chunk) {
    return std::find(pending.chunks.begin(), pending.chunks.end(), chunk) != pending.chunks.end();
  };
  Micros penalty = 0;
  const char* why = has(Chunk::kAway) ? "the node went away before it was audited"
                                      : "the node was evicted before it was audited";
  if (has(Chunk::kLied)) {
    why = "an audit proved it wrong";
    penalty = PenaltyMicros(rules_, pending.work.amount, pending.audit_rate_ppm,
                            DetectionPpm(rules_, /*by_coordinator=*/false));
  } else if (has(Chunk::kDisputed)) {
    why = "a neighbour claims other bytes, and nothing decides";
  } else if (has(Chunk::kWithheld)) {
    why = "the node did not show what it was computed from";
  }
  const nlohmann::json memo = {
      {"why", why}, {"audit_rate_ppm", pending.audit_rate_ppm}, {"penalty", penalty}};
  return VoidEntry(pending.work, penalty, micros, memo.dump());
}

void ContributionBook::BookPenalty(NodeId id, const Node& node, const std::string& evidence) {
  const Micros penalty =
      PenaltyMicros(rules_, node.last_pay, efedllm::AuditRatePpm(rules_, node.trust), kWhole);
  if (penalty == 0) return;
  Entry entry{.key = absl::StrCat("penalty:", NodeName(id), ":", ++serial_),
              .kind = EntryKind::kPenalty};
  entry.about = evidence;
  entry.postings = {{NodeAccount(id), -penalty}, {kPenaltyAccount, penalty}};
  Book(std::move(entry));
}

void ContributionBook::ResolvePay(Node& node, absl::Time now) {
  for (auto at = node.open.begin(); at != node.open.end();) {
    const Pending& pending = at->second;
    PendingChunk facts;
    bool open = false;
    for (const Chunk chunk : pending.chunks) {
      open |= chunk == Chunk::kUnknown || chunk == Chunk::kOpen;
      facts.verified |= chunk == Chunk::kVerified;
      facts.away |= chunk == Chunk::kAway;
      facts.disputed |= chunk == Chunk::kDisputed;
      facts.disproved |= chunk == Chunk::kLied || chunk == Chunk::kWithheld;
    }
    facts.picked = open || facts.verified;
    facts.verified &= !open;
    facts.age_seconds = absl::ToInt64Seconds(now - pending.since);
    facts.later_chunks = node.chunks - pending.chunks_before;
    const PayDecision decision = DecidePay(rules_, facts, node.trust.state);
    if (decision == PayDecision::kWait) {
      ++at;
      continue;
    }
    Book(Resolution(pending, decision, now));
    at = node.open.erase(at);
  }
}

void ContributionBook::BookUsage(absl::Time now) {
  if (now - usage_booked_ < kUsageInterval) return;
  usage_booked_ = now;
  for (const auto& [key, usage] : usage_) {
    const Micros charge = ChargeMicros(rules_, usage);
    const std::string id = key.empty() ? "none" : key;
    Entry entry{.key = absl::StrCat("usage:", id, ":", ++serial_), .kind = EntryKind::kUsage};
    entry.postings = {{kIssuerAccount, charge}, {ApiKeyAccount(id), -charge}};
    entry.tokens = usage.prompt_tokens + usage.generated_tokens;
    entry.flops = usage.flops;
    nlohmann::json memo = KeyUsageToJson(usage);
    memo["rules_version"] = rules_.version;
    entry.memo = memo.dump();
    Book(std::move(entry));
  }
  usage_.clear();
}

void ContributionBook::Settle(absl::Time now) {
  std::map<NodeId, std::string> owners;
  const int64_t day = DayOf(now);
  {
    absl::MutexLock lock(&mu_);
    if (day <= settled_day_) return;
    settled_day_ = day;
    for (const auto& [id, node] : nodes_) {
      if (!node.owner.empty()) owners[id] = node.owner;
    }
  }
  for (const auto& [id, owner] : owners) {
    const absl::StatusOr<Micros> balance = parts_.ledger.reader().Balance(NodeAccount(id));
    if (!balance.ok() || *balance <= 0) continue;  // what it owes stays with it
    absl::MutexLock lock(&mu_);
    Book(SettlementEntry(id, owner, *balance, absl::ToUnixMicros(now)));
  }
}

void ContributionBook::Turn() {
  Consequences consequences;
  const std::map<std::string, KeyUsage> used = parts_.usage();
  {
    absl::MutexLock lock(&mu_);
    const absl::Time now = parts_.clock.Now(), wall = parts_.clock.WallNow();
    for (const auto& [key, usage] : used) usage_[key] = Sum(usage_[key], usage);
    BookUsage(now);
    for (auto& [id, node] : nodes_) {
      Follow(id, AgeTrust(rules_, node.trust, absl::ToUnixSeconds(wall)), consequences);
      ResolvePay(node, wall);
      if (!node.changed || now - node.written < kTrustInterval) continue;
      Book(TrustEntry(id, node, nullptr));
      node.written = now;
      node.changed = false;
    }
  }
  Act(consequences);
  Settle(parts_.clock.WallNow());
  Write();
}

// All at once; or, where one of them is refused, one by one, so that it holds up nobody else.
void ContributionBook::Write() {
  std::vector<Entry> entries;
  {
    absl::MutexLock lock(&mu_);
    entries.swap(unwritten_);
  }
  if (entries.empty()) return;
  absl::Status status = parts_.ledger.Append(entries).status();
  const auto is_full = [](const absl::Status& s) { return absl::IsResourceExhausted(s); };
  size_t written = status.ok() ? entries.size() : 0;
  while (!status.ok() && !is_full(status) && written < entries.size()) {
    const absl::Status one = parts_.ledger.Append({&entries[written], 1}).status();
    if (is_full(one)) {
      status = one;
      break;
    }
    if (!one.ok()) spdlog::error("not in the ledger: {}", Printable(one.message(), 300));
    ++written;
  }
  absl::MutexLock lock(&mu_);
  unwritten_.insert(unwritten_.begin(), std::make_move_iterator(entries.begin() + written),
                    std::make_move_iterator(entries.end()));
  if (is_full(status) && ledger_status_.ok()) {
    spdlog::error("the ledger can't be written: {}", Printable(status.message(), 300));
  }
  ledger_status_ = is_full(status) ? status : absl::OkStatus();
}

absl::Status ContributionBook::accepting() const {
  absl::MutexLock lock(&mu_);
  if (ledger_status_.ok() && unwritten_.size() < kMostUnwritten) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(
      "no work is taken, for it could not be booked: ",
      ledger_status_.ok() ? "the ledger's disk is too slow" : ledger_status_.message()));
}

}  // namespace efedllm
