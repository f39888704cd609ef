#include "incentive/ledger_entry.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace efedllm {
namespace {

constexpr absl::string_view kEscrow = "escrow:";
constexpr absl::string_view kNode = "node:";
constexpr absl::string_view kOwnerPrefix = "owner:";
constexpr absl::string_view kApiKey = "key:";

constexpr size_t kMaxPendingKey = kMaxEntryKey - 10;  // so that "post:" goes before it

struct NamedKind {
  EntryKind kind;
  absl::string_view name;
};
constexpr std::array<NamedKind, 11> kKinds = {{{EntryKind::kOpening, "opening"},
                                               {EntryKind::kPending, "pending"},
                                               {EntryKind::kPost, "post"},
                                               {EntryKind::kVoid, "void"},
                                               {EntryKind::kPenalty, "penalty"},
                                               {EntryKind::kSettlement, "settlement"},
                                               {EntryKind::kUsage, "usage"},
                                               {EntryKind::kOwner, "owner"},
                                               {EntryKind::kRules, "rules"},
                                               {EntryKind::kTrust, "trust"},
                                               {EntryKind::kEvidence, "evidence"}}};

const NamedKind* Find(EntryKind kind) {
  const auto* found = absl::c_find_if(kKinds, [&](const NamedKind& k) { return k.kind == kind; });
  return found == kKinds.end() ? nullptr : found;
}

absl::Status Wrong(const Entry& entry, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("entry ", entry.key.substr(0, kMaxEntryKey), ": ", what));
}

bool IsUtf8(std::string text) {
  for (char& c : text) c = c == '"' || c == '\\' ? '_' : c;
  return nlohmann::json::accept(absl::StrCat("\"", text, "\""));
}

bool IsPlain(absl::string_view text) {
  return absl::c_none_of(text, [](char c) { return absl::ascii_iscntrl(c); });
}

std::optional<NodeId> NodeOf(absl::string_view account, absl::string_view prefix) {
  if (!absl::StartsWith(account, prefix)) return std::nullopt;
  return ParseNodeName(account.substr(prefix.size()));
}

bool IsAccount(absl::string_view name) {
  if (name == kIssuerAccount || name == kPenaltyAccount) return true;
  if (name.size() > kMaxAccountName || !IsPlain(name)) return false;
  if (NodeOf(name, kEscrow).has_value() || NodeOf(name, kNode).has_value()) return true;
  return (absl::StartsWith(name, kOwnerPrefix) && name.size() > kOwnerPrefix.size()) ||
         (absl::StartsWith(name, kApiKey) && name.size() > kApiKey.size());
}

absl::Status CheckBounds(const Entry& entry) {
  const bool key_ok = !entry.key.empty() && entry.key.size() <= kMaxEntryKey &&
                      absl::c_all_of(entry.key, absl::ascii_isgraph);
  if (!key_ok) return Wrong(entry, "its key is not 1 to 200 printable characters without spaces");
  if (entry.about.size() > kMaxEntryKey || !IsPlain(entry.about)) {
    return Wrong(entry, "what it is about is longer than 200 bytes or not printable");
  }
  if (Find(entry.kind) == nullptr) return Wrong(entry, absl::StrCat("no ", KindName(entry.kind)));
  if (entry.memo.size() > kMaxEntryMemo) return Wrong(entry, "its memo is longer than 16 KiB");
  constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
  if (entry.tokens > kMax || entry.flops > kMax) return Wrong(entry, "tokens or FLOPs overflow");
  return absl::OkStatus();
}

absl::Status CheckPostings(const Entry& entry) {
  if (entry.postings.size() > kMaxEntryPostings) return Wrong(entry, "more than 64 postings");
  Micros sum = 0;  // of at most 64 times 10^15
  const std::string* before = nullptr;
  for (const Posting& posting : entry.postings) {
    if (!IsAccount(posting.account)) {
      return Wrong(entry, absl::StrCat("no account ", posting.account.substr(0, kMaxAccountName)));
    }
    if (before != nullptr && *before >= posting.account) {
      return Wrong(entry, absl::StrCat("postings out of order, or two on ", posting.account));
    }
    if (posting.amount > kMaxPosting || posting.amount < -kMaxPosting) {
      return Wrong(entry, "a posting of more than a billion credits");
    }
    before = &posting.account;
    sum += posting.amount;
  }
  if (sum != 0) return Wrong(entry, absl::StrCat("its postings sum to ", sum, " instead of 0"));
  return absl::OkStatus();
}

Micros AmountOn(const Entry& entry, absl::string_view account) {
  const auto found =
      absl::c_find_if(entry.postings, [&](const Posting& p) { return p.account == account; });
  return found == entry.postings.end() ? 0 : found->amount;
}

// The node that an entry of work or penalties is about, by its accounts.
std::optional<NodeId> OnlyNode(const Entry& entry) {
  std::optional<NodeId> node;
  for (const Posting& posting : entry.postings) {
    std::optional<NodeId> here = NodeOf(posting.account, kEscrow);
    if (!here.has_value()) here = NodeOf(posting.account, kNode);
    if (!here.has_value()) continue;
    if (node.has_value() && *node != *here) return std::nullopt;
    node = here;
  }
  return node;
}

// The postings of work and penalties are the ones of their builders and no others.
absl::Status CheckWork(const Entry& entry) {
  const std::optional<NodeId> node = OnlyNode(entry);
  if (!node.has_value()) return Wrong(entry, "it is not about one node");
  PendingWork work{.node = *node};
  Entry expected;
  if (entry.kind == EntryKind::kPending) {
    if (entry.key.size() > kMaxPendingKey) return Wrong(entry, "its key is longer than 190 bytes");
    work.amount = AmountOn(entry, EscrowAccount(*node));
    expected = PendingEntry(work, "");
  } else if (entry.kind == EntryKind::kPost) {
    work.amount = AmountOn(entry, NodeAccount(*node));
    expected = PostEntry(work, 0);
  } else if (entry.kind == EntryKind::kVoid) {
    work.amount = AmountOn(entry, kIssuerAccount);
    expected = VoidEntry(work, AmountOn(entry, kPenaltyAccount), 0, "");
  } else {
    const Micros penalty = AmountOn(entry, kPenaltyAccount);
    expected.postings = {{NodeAccount(*node), -penalty}, {kPenaltyAccount, penalty}};
    work.amount = penalty;
  }
  const bool fits = work.amount >= 0 && AmountOn(entry, kPenaltyAccount) >= 0;
  if (!fits || expected.postings != entry.postings) {
    return Wrong(entry, absl::StrCat("its postings are not those of a ", KindName(entry.kind)));
  }
  const bool resolves = entry.kind == EntryKind::kPost || entry.kind == EntryKind::kVoid;
  if (resolves && entry.about.empty())
    return Wrong(entry, "it does not say which work it is about");
  return absl::OkStatus();
}

absl::Status CheckOther(const Entry& entry) {
  for (const Posting& posting : entry.postings) {
    const std::string& account = posting.account;
    if (absl::StartsWith(account, kEscrow)) return Wrong(entry, "it has no business with escrow");
    const bool of_usage = account == kIssuerAccount || absl::StartsWith(account, kApiKey);
    if (entry.kind == EntryKind::kUsage && !of_usage) {
      return Wrong(entry, absl::StrCat("usage has nothing to do with ", account));
    }
    const bool with_money = entry.kind == EntryKind::kUsage || entry.kind == EntryKind::kSettlement;
    if (!with_money && posting.amount != 0) {
      return Wrong(entry, absl::StrCat("a ", KindName(entry.kind), " entry moves no money"));
    }
  }
  return absl::OkStatus();
}

void Append64(std::string& bytes, uint64_t value) {
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
}

void AppendText(std::string& bytes, absl::string_view text) {
  Append64(bytes, text.size());
  bytes.append(text.data(), text.size());
}

}  // namespace

std::string KindName(EntryKind kind) {
  const NamedKind* named = Find(kind);
  return named == nullptr ? absl::StrCat("kind ", static_cast<uint32_t>(kind))
                          : std::string(named->name);
}

std::optional<EntryKind> ParseKind(absl::string_view name) {
  for (const NamedKind& kind : kKinds) {
    if (kind.name == name) return kind.kind;
  }
  return std::nullopt;
}

std::string EscrowAccount(NodeId node) { return absl::StrCat(kEscrow, NodeName(node)); }
std::string NodeAccount(NodeId node) { return absl::StrCat(kNode, NodeName(node)); }
std::string OwnerAccount(absl::string_view owner) { return absl::StrCat(kOwnerPrefix, owner); }
std::string ApiKeyAccount(absl::string_view id) { return absl::StrCat(kApiKey, id); }

bool MayBeNegative(absl::string_view account) {
  return account != kPenaltyAccount && !absl::StartsWith(account, kEscrow);
}

bool SaysTheSame(const Entry& a, const Entry& b) {
  return a.key == b.key && a.kind == b.kind && a.about == b.about && a.postings == b.postings &&
         a.tokens == b.tokens && a.flops == b.flops && a.memo == b.memo;
}

void Normalize(Entry& entry) {
  absl::c_sort(entry.postings, [](const Posting& a, const Posting& b) {
    return std::tie(a.account, a.amount) < std::tie(b.account, b.amount);
  });
}

absl::Status CheckEntry(const Entry& entry) {
  for (const auto check : {CheckBounds, CheckPostings}) {
    if (const absl::Status status = check(entry); !status.ok()) return status;
  }
  const bool work = entry.kind == EntryKind::kPending || entry.kind == EntryKind::kPost ||
                    entry.kind == EntryKind::kVoid || entry.kind == EntryKind::kPenalty;
  return work ? CheckWork(entry) : CheckOther(entry);
}

absl::Status CheckText(const Entry& entry) {
  const bool names_ok = IsUtf8(entry.about) && absl::c_all_of(entry.postings, [](const Posting& p) {
                          return IsUtf8(p.account);
                        });
  if (!names_ok) return Wrong(entry, "a name in it is not UTF-8");
  if (entry.memo.empty()) return absl::OkStatus();
  if (entry.memo.front() == '{' && nlohmann::json::accept(entry.memo)) return absl::OkStatus();
  return Wrong(entry, "its memo is not a JSON object");
}

Entry PendingEntry(const PendingWork& work, std::string memo) {
  Entry entry{.key = work.key, .kind = EntryKind::kPending, .time_micros = work.time_micros};
  entry.postings = {{EscrowAccount(work.node), work.amount}, {kIssuerAccount, -work.amount}};
  entry.tokens = work.tokens;
  entry.flops = work.flops;
  entry.memo = std::move(memo);
  return entry;
}

Entry PostEntry(const PendingWork& work, int64_t time_micros) {
  Entry entry{.key = absl::StrCat("post:", work.key),
              .kind = EntryKind::kPost,
              .time_micros = time_micros,
              .about = work.key};
  entry.postings = {{EscrowAccount(work.node), -work.amount},
                    {NodeAccount(work.node), work.amount}};
  entry.tokens = work.tokens;
  entry.flops = work.flops;
  return entry;
}

Entry VoidEntry(const PendingWork& work, Micros penalty, int64_t time_micros, std::string memo) {
  Entry entry{.key = absl::StrCat("void:", work.key),
              .kind = EntryKind::kVoid,
              .time_micros = time_micros,
              .about = work.key};
  entry.postings = {{EscrowAccount(work.node), -work.amount}, {kIssuerAccount, work.amount}};
  if (penalty != 0) {
    entry.postings.push_back({NodeAccount(work.node), -penalty});
    entry.postings.push_back({kPenaltyAccount, penalty});
  }
  entry.tokens = work.tokens;
  entry.flops = work.flops;
  entry.memo = std::move(memo);
  return entry;
}

Entry OwnerEntry(NodeId node, absl::string_view owner, int64_t time_micros) {
  Entry entry{.key = absl::StrCat("owner:", NodeName(node), ":", time_micros),
              .kind = EntryKind::kOwner,
              .time_micros = time_micros};
  entry.postings = {{NodeAccount(node), 0}, {OwnerAccount(owner), 0}};
  return entry;
}

absl::Status CheckResolves(const Entry& entry, const PendingWork& work) {
  const bool post = entry.kind == EntryKind::kPost;
  const Micros penalty = AmountOn(entry, kPenaltyAccount);
  Entry expected = post ? PostEntry(work, 0) : VoidEntry(work, penalty, 0, "");
  expected.memo = entry.memo;
  if (SaysTheSame(entry, expected)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("entry ", entry.key, " does not resolve ",
                                                    work.key, " of ", FormatCredits(work.amount),
                                                    " credits for node ", NodeName(work.node)));
}

PendingWork WorkOf(const Entry& pending) {
  PendingWork work{.key = pending.key, .node = OnlyNode(pending).value_or(NodeId{})};
  work.amount = AmountOn(pending, EscrowAccount(work.node));
  work.tokens = pending.tokens;
  work.flops = pending.flops;
  work.time_micros = pending.time_micros;
  return work;
}

std::string CanonicalBytes(const Entry& entry, uint64_t number) {
  std::string bytes = "eFedLLM ledger entry 1\n";
  bytes.reserve(200 + entry.key.size() + entry.about.size() + entry.memo.size() +
                48 * entry.postings.size());
  Append64(bytes, number);
  AppendText(bytes, entry.key);
  Append64(bytes, static_cast<uint32_t>(entry.kind));
  Append64(bytes, static_cast<uint64_t>(entry.time_micros));
  AppendText(bytes, entry.about);
  Append64(bytes, entry.postings.size());
  for (const Posting& posting : entry.postings) {
    AppendText(bytes, posting.account);
    Append64(bytes, static_cast<uint64_t>(posting.amount));
  }
  Append64(bytes, entry.tokens);
  Append64(bytes, entry.flops);
  AppendText(bytes, entry.memo);
  return bytes;
}

Sha256Digest ChainHash(const Sha256Digest& previous, absl::string_view canonical_bytes) {
  static thread_local Sha256Hasher hasher;
  hasher.Add(previous);
  hasher.Add({reinterpret_cast<const uint8_t*>(canonical_bytes.data()), canonical_bytes.size()});
  return hasher.Finish();
}

std::string FormatCredits(Micros amount) {
  const uint64_t size = amount < 0 ? -static_cast<uint64_t>(amount) : static_cast<uint64_t>(amount);
  return absl::StrFormat("%s%d.%06d", amount < 0 ? "-" : "", size / 1'000'000, size % 1'000'000);
}

}  // namespace efedllm
