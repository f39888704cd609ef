#include "coordinator/incentives.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/random.h"
#include "common/status_macros.h"
#include "coordinator/audit_sources.h"
#include "nlohmann/json.hpp"

namespace efedllm {
namespace {

constexpr absl::Duration kTurn = absl::Seconds(1);

LotterySecret FreshSecret() {
  LotterySecret secret;
  const std::string bytes = SecureRandomBytes(secret.size());
  std::copy(bytes.begin(), bytes.end(), secret.begin());
  return secret;
}

template <typename Bytes>
std::string Hex(const Bytes& bytes) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

// What the lottery's draws can be checked with: its commitment before the first, the secret after
// the last.
Entry LotteryEntry(const char* what, const LotterySecret& secret, const std::string& value,
                   absl::Time now) {
  Entry entry{.key = absl::StrCat("lottery:", Hex(LotteryCommitment(secret)), ":", what),
              .kind = EntryKind::kEvidence};
  entry.time_micros = absl::ToUnixMicros(now);
  entry.about = "lottery";
  entry.memo = nlohmann::json{{what, value}}.dump();
  return entry;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Incentives>> Incentives::Start(const IncentivesOptions& options,
                                                              const IncentivesParts& parts) {
  std::unique_ptr<Incentives> incentives(new Incentives(parts));
  ASSIGN_OR_RETURN(incentives->ledger_,
                   Ledger::Open(LedgerPath(options.state_dir), parts.clock.WallNow()));
  ASSIGN_OR_RETURN(incentives->book_,
                   ContributionBook::Open(options.rules, incentives->BookParts()));
  const Entry commitment =
      LotteryEntry("commitment", incentives->secret_, Hex(LotteryCommitment(incentives->secret_)),
                   parts.clock.WallNow());
  RETURN_IF_ERROR(incentives->ledger_->Append({&commitment, 1}).status());
  incentives->audits_ = std::make_unique<AuditRunner>(
      options.audits, incentives->AuditParts(options.state_dir, options.rules));
  incentives->thread_ = std::thread([self = incentives.get()] { self->Loop(); });
  return incentives;
}

Incentives::Incentives(const IncentivesParts& parts) : parts_(parts), secret_(FreshSecret()) {}

void Incentives::Stop() {
  audits_.reset();
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (!thread_.joinable()) return;
  thread_.join();
  const Entry secret = LotteryEntry("secret", secret_, Hex(secret_), parts_.clock.WallNow());
  const absl::Status revealed = ledger_->Append({&secret, 1}).status();
  if (!revealed.ok()) {
    spdlog::warn("the audits' lottery is not revealed: {}", Printable(revealed.message(), 300));
  }
}

ContributionParts Incentives::BookParts() {
  return {.clock = parts_.clock,
          .config = parts_.config,
          .ledger = *ledger_,
          .owner = [this](NodeId node) { return OwnerOf(node); },
          .owners_of_layers =
              [this](LayerRange layers) {
                const Census census = CensusNow();
                std::vector<uint32_t> owners;
                owners.reserve(layers.size());
                for (uint32_t layer = layers.first; layer < layers.last; ++layer) {
                  std::set<std::string> holders;
                  for (const auto& [held, owner] : census.layers) {
                    if (held.first <= layer && layer < held.last) holders.insert(owner);
                  }
                  owners.push_back(static_cast<uint32_t>(holders.size()));
                }
                return owners;
              },
          .pick =
              [this](const SignedReceipt& receipt, const std::vector<ClaimPtr>& claims) {
                return audits_->OnReceipt(receipt, claims);
              },
          .keep =
              [this](const RefusedReceipt& refused) {
                return audits_->evidence().Put(refused, parts_.clock.WallNow());
              },
          .usage = [this] { return parts_.usage.Take(); },
          .bar = [this](NodeId node, const std::string& why) { parts_.keeper.Bar(node, why); },
          .readmit = [this](NodeId node) { parts_.keeper.Readmit(node); },
          .safe_channels = parts_.safe_channels};
}

AuditRunnerParts Incentives::AuditParts(const std::string& state_dir, const IncentiveRules& rules) {
  return {
      .clock = parts_.clock,
      .rows = parts_.rows,
      .bases = parts_.bases,
      .model = parts_.model,
      .replay = parts_.replay,
      .layers = parts_.layers,
      .evidence_folder = state_dir + "/evidence",
      .verifiers = [this](const ReceiptStage& stage) { return Verifiers(stage); },
      .owner = [this](NodeId node) { return OwnerOf(node); },
      .replayer = parts_.replayer,
      .recheck_ppm = rules.audit_recheck_ppm,
      .planted_ppm = rules.audit_planted_ppm,
      .secret = secret_,
      .rate_ppm = [this](NodeId node) { return book_->AuditRatePpm(node); },
      .busy = parts_.busy,
      .stayed =
          [this](NodeId node, absl::Time since) {
            for (const Member& member : parts_.keeper.Status().members) {
              if (member.node == node) return member.attached() && member.joined <= since;
            }
            return false;
          },
      .on_proven = [this](NodeId node) { parts_.keeper.Bar(node, "an audit proves that it lied"); },
      .on_result = [this](const AuditResult& result) { book_->OnAudit(result); }};
}

std::vector<AuditVerifier> Incentives::Verifiers(const ReceiptStage& stage) {
  std::map<NodeId, TrustState> states;
  for (const NodeStanding& standing : book_->Standings()) {
    states[standing.node] = standing.trust.state;
  }
  return VerifiersOf(
      stage, parts_.keeper.Status(), [this](NodeId node) { return OwnerOf(node); },
      [&](NodeId node) {
        const auto found = states.find(node);
        return found == states.end() ? TrustState::kProbation : found->second;
      });
}

std::string Incentives::OwnerOf(NodeId node) {
  const Census census = CensusNow();
  const auto found = census.owners.find(node);
  return found == census.owners.end() ? "" : found->second;
}

Incentives::Census Incentives::CensusNow() {
  const absl::Time now = parts_.clock.Now();
  {
    absl::MutexLock lock(&mu_);
    if (now - census_.taken < kTurn) return census_;
  }
  Census census{.taken = now};
  for (const Member& member : parts_.keeper.Status().members) {
    census.owners[member.node] = member.hello.owner;
    if (!member.present || !member.attached()) continue;
    census.layers.emplace_back(member.present->layers, member.hello.owner);
  }
  absl::MutexLock lock(&mu_);
  census_ = census;
  return census;
}

void Incentives::Loop() {
  const auto stopping = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return stopping_; };
  bool last = false;
  while (!last) {
    {
      absl::MutexLock lock(&mu_);
      last = mu_.AwaitWithTimeout(absl::Condition(&stopping), kTurn);
    }
    book_->Turn();
  }
}

}  // namespace efedllm
