#include "incentive/population.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "incentive/penalty.h"
#include "incentive/population_machine.h"

namespace efedllm {
namespace {

constexpr int64_t kStart = 1'700'000'000;  // any time will do
constexpr double kMicrosPerCredit = 1e6;

struct Machine {
  size_t group = 0;
  std::vector<std::unique_ptr<PopulationKey>> keys;  // the present ones; old ones are settled
  uint32_t back_in = 0;                              // rounds until it has a new key
};

class Population {
 public:
  Population(const PopulationScenario& scenario, const IncentiveRules& rules)
      : scenario_(scenario), rules_(rules), random_(scenario.seed) {
    for (uint8_t& byte : secret_) byte = static_cast<uint8_t>(random_.Next());
    result_.scenario = scenario;
    result_.rules = rules;
    for (size_t group = 0; group < scenario.groups.size(); ++group) {
      result_.groups.emplace_back().group = scenario.groups[group];
      for (uint32_t i = 0; i < scenario.groups[group].machines; ++i) {
        machines_.emplace_back().group = group;
        machines_.back().keys.push_back(NewKey(machines_.back(), machines_.size()));
        const bool twins = scenario.groups[group].kind == PopulationKind::kTwins;
        for (uint64_t more = 1; twins && more < scenario.groups[group].keys; ++more) {
          machines_.back().keys.push_back(NewKey(machines_.back(), machines_.size()));
        }
      }
    }
  }

  PopulationResult Run() {
    for (uint32_t round = 0; round < scenario_.rounds; ++round) {
      now_ = kStart + int64_t{scenario_.seconds_per_round} * (round + 1);
      FindVerifiers();
      for (Machine& machine : machines_) Work(machine);
      for (Machine& machine : machines_) {
        for (auto& key : machine.keys) Settle(machine, *key);
        Replace(machine);
      }
      Record();
    }
    Finish();
    return std::move(result_);
  }

 private:
  const PopulationGroup& GroupOf(const Machine& machine) const {
    return scenario_.groups[machine.group];
  }
  PopulationGroupResult& ResultOf(const Machine& machine) { return result_.groups[machine.group]; }

  std::unique_ptr<PopulationKey> NewKey(const Machine& machine, size_t owner) {
    auto key = std::make_unique<PopulationKey>();
    key->node = NodeId{++last_node_};
    key->owner = absl::StrCat("owner-", owner);
    ++ResultOf(machine).keys;
    return key;
  }

  void FindVerifiers() {
    candidates_.clear();
    verifiers_.clear();
    for (Machine& machine : machines_) {
      for (auto& key : machine.keys) {
        if (key->trust.state != TrustState::kTrusted) continue;
        candidates_.push_back({key->node, key->owner, true, true, key->trust.state});
        verifiers_.emplace_back(&machine, key.get());
      }
    }
  }

  void Apply(const Machine& machine, PopulationKey& key, TrustEventKind kind, double weight = 1) {
    TrustEvent event;
    event.kind = kind;
    event.unix_seconds = now_;
    event.weight = weight;
    TrustChange change = ApplyTrustEvent(rules_, key.trust, event);
    key.trust = std::move(change.record);
    if (!change.transition) return;
    if (change.transition->to == TrustState::kEvicted) ++ResultOf(machine).evicted_keys;
    if (change.transition->to == TrustState::kQuarantined) ++ResultOf(machine).quarantined_keys;
  }

  // A round of one machine. Its keys share what it can compute.
  void Work(Machine& machine) {
    const PopulationGroup& group = GroupOf(machine);
    const auto capacity =
        static_cast<double>(scenario_.chunks_per_round) / static_cast<double>(machine.keys.size());
    for (auto& key : machine.keys) {
      if (!MayWork(key->trust)) continue;
      if (group.kind == PopulationKind::kFlaky && random_.Below(kWhole) < group.offline_ppm) {
        Apply(machine, *key, TrustEventKind::kFailed, 10);
        continue;
      }
      // A planner gives it what it counts on; the rest of a chunk by lot.
      const double share = capacity * RoutingShare(rules_, key->trust);
      auto chunks = static_cast<uint64_t>(share);
      if (random_.Uniform() < share - static_cast<double>(chunks)) ++chunks;
      for (uint64_t i = 0; i < chunks && MayWork(key->trust); ++i) Deliver(machine, *key);
      const double late = group.kind == PopulationKind::kSlow
                              ? static_cast<double>(group.late_ppm) / static_cast<double>(kWhole)
                              : 0;
      const auto steps = static_cast<double>(std::max<uint64_t>(chunks, 1));
      Apply(machine, *key, TrustEventKind::kAnswered, steps);
      Apply(machine, *key, TrustEventKind::kLate, late * steps);
      Apply(machine, *key, TrustEventKind::kInTime, (1 - late) * steps);
    }
  }

  void Deliver(Machine& machine, PopulationKey& key) {
    PopulationGroupResult& result = ResultOf(machine);
    const bool bad = DeliversBadChunk(GroupOf(machine), key, random_);
    const RewardFactors factors =
        MakeRewardFactors(rules_, scenario_.gflops_per_chunk * 1'000'000'000, key.trust, {});
    PopulationPay pay;
    pay.micros = RewardMicros(factors);
    pay.audit_ppm = factors.audit_rate_ppm;
    pay.unix_seconds = now_;
    pay.number = key.chunks;
    ++result.chunks;
    result.honest_pay += pay.micros;
    if (bad) {
      ++result.bad_chunks;
      result.saved_cost += static_cast<double>(pay.micros) *
                           static_cast<double>(scenario_.cost_ppm) / static_cast<double>(kWhole);
    }
    ChunkTicket ticket;
    ticket.node = key.node;
    ticket.receipt = key.chunks;
    ticket.outputs = bad ? BadOutputs() : RightOutputs();
    pay.picked = Wins(Draw(secret_, LotteryPurpose::kAudit, ticket), pay.audit_ppm);
    key.pending.push_back(pay);
    if (pay.picked) Audit(machine, key, ticket);
  }

  struct Asked {
    Machine* machine = nullptr;
    PopulationKey* key = nullptr;
  };
  // Nobody: the coordinator computes it.
  Asked Ask(const PopulationKey& audited, const Asked& first, uint64_t draw) {
    std::vector<std::string> excluded = {audited.owner};
    if (first.key != nullptr) excluded.push_back(first.key->owner);
    const std::optional<size_t> chosen = ChooseVerifier(candidates_, excluded, draw);
    if (!chosen) return {};
    const auto& [machine, key] = verifiers_[*chosen];
    return {machine, key};
  }

  Sha256Digest Answer(const Machine& audited, const Asked& verifier, const ChunkTicket& ticket) {
    return VerifierAnswer(GroupOf(*verifier.machine), ticket.outputs, RightOutputs(),
                          verifier.machine->group == audited.group);
  }

  void Audit(Machine& machine, PopulationKey& key, const ChunkTicket& ticket) {
    ++ResultOf(machine).audits;
    AuditCase audit;
    audit.claimed = ticket.outputs;
    audit.recheck = Wins(Draw(secret_, LotteryPurpose::kRecheck, ticket), rules_.audit_recheck_ppm);
    Asked first, second;
    if (random_.Below(kWhole) < scenario_.peers_ppm) {
      first = Ask(key, {}, Draw(secret_, LotteryPurpose::kVerifier, ticket));
    }
    key.pending.back().detection_ppm = DetectionPpm(rules_, first.key == nullptr);
    if (first.key != nullptr) audit.first = Answer(machine, first, ticket);
    AuditVerdict verdict;
    while (true) {
      const bool contradicted = audit.first && *audit.first != audit.claimed;
      if (contradicted && second.key == nullptr) {
        second = Ask(key, first, Draw(secret_, LotteryPurpose::kSecond, ticket));
      }
      verdict = JudgeAudit(audit, second.key != nullptr);
      if (verdict.next == AuditStep::kDone) break;
      if (verdict.next == AuditStep::kAskSecond) audit.second = Answer(machine, second, ticket);
      if (verdict.next == AuditStep::kAskFirst || verdict.next == AuditStep::kAskCoordinator) {
        audit.coordinator = RightOutputs();
      }
      if (verdict.next == AuditStep::kCoordinatorAgain) audit.coordinator_again = RightOutputs();
    }
    Conclude(machine, key, verdict);
    Blame(first, verdict.first);
    Blame(second, verdict.second);
    if (first.key != nullptr) Plant(first, ticket);
  }

  void Conclude(Machine& machine, PopulationKey& key, const AuditVerdict& verdict) {
    PopulationPay& pay = key.pending.back();
    if (verdict.node == AuditVerdict::Node::kHonest) {
      pay.verified = true;
      Apply(machine, key, TrustEventKind::kAuditClean);
    } else if (verdict.node == AuditVerdict::Node::kLied) {
      pay.disproved = true;
      key.detection.proven = true;
      Apply(machine, key, TrustEventKind::kLie);
    }
  }

  void Blame(const Asked& verifier, AuditVerdict::Verifier verdict) {
    if (verifier.key == nullptr || verdict != AuditVerdict::Verifier::kLied) return;
    // It may have answered before it was found out within the same round.
    if (verifier.key->trust.state == TrustState::kEvicted) return;
    Apply(*verifier.machine, *verifier.key, TrustEventKind::kVerifierLie);
  }

  // Beside this challenge, one whose right answer is known and is not what is said to be claimed.
  void Plant(const Asked& verifier, const ChunkTicket& ticket) {
    if (!Wins(Draw(secret_, LotteryPurpose::kPlanted, ticket), rules_.audit_planted_ppm)) return;
    const Sha256Digest answer = VerifierAnswer(GroupOf(*verifier.machine), BadOutputs(),
                                               RightOutputs(), /*of_its_own=*/false);
    Blame(verifier, JudgePlanted(RightOutputs(), answer));
  }

  // Posts and voids what may be, in order, and takes penalties.
  void Settle(Machine& machine, PopulationKey& key) {
    PopulationGroupResult& result = ResultOf(machine);
    int64_t penalty = 0;
    while (!key.pending.empty()) {
      const PopulationPay& pay = key.pending.front();
      PendingChunk chunk;
      chunk.picked = pay.picked;
      chunk.verified = pay.verified;
      chunk.disproved = pay.disproved;
      chunk.age_seconds = now_ - pay.unix_seconds + scenario_.seconds_per_round;
      chunk.later_chunks = key.chunks - pay.number;
      const PayDecision decision = DecidePay(rules_, chunk, key.trust.state);
      if (decision == PayDecision::kWait) break;
      if (decision == PayDecision::kPost) {
        result.posted += pay.micros;
        key.balance += pay.micros;
      } else {
        result.voided += pay.micros;
      }
      if (pay.disproved) {
        penalty += PenaltyMicros(rules_, pay.micros, pay.audit_ppm, pay.detection_ppm);
      }
      key.pending.pop_front();
    }
    const PenaltySources taken = CollectPenalty(penalty, 0, key.balance);
    key.balance -= taken.from_balance;
    result.penalties += taken.from_balance;
  }

  // Who comes back under a new key leaves the old one, with what it owes.
  void Replace(Machine& machine) {
    const PopulationGroup& group = GroupOf(machine);
    if (group.kind != PopulationKind::kSybil && group.kind != PopulationKind::kReturner) return;
    if (machine.keys.front()->trust.state != TrustState::kEvicted) return;
    if (machine.back_in == 0) machine.back_in = static_cast<uint32_t>(group.away_rounds) + 1;
    if (--machine.back_in > 0) return;
    Keep(machine, *machine.keys.front());
    const std::string owner = machine.keys.front()->owner;
    machine.keys.front() = NewKey(machine, 0);
    machine.keys.front()->owner = owner;
  }

  void Keep(Machine& machine, const PopulationKey& key) {
    PopulationGroupResult& result = ResultOf(machine);
    for (const PopulationPay& pay : key.pending) result.pending += pay.micros;
    if (key.detection.bad_chunks > 0) result.detections.push_back(key.detection);
  }

  void Record() {
    for (PopulationGroupResult& group : result_.groups) {
      group.earned.push_back(static_cast<double>(group.earned_micros()) / kMicrosPerCredit /
                             group.group.machines);
      group.evicted.push_back(static_cast<double>(group.evicted_keys) /
                              static_cast<double>(group.keys));
    }
  }

  void Finish() {
    for (Machine& machine : machines_) {
      for (auto& key : machine.keys) Keep(machine, *key);
    }
  }

  const PopulationScenario& scenario_;
  const IncentiveRules& rules_;
  Random random_;
  LotterySecret secret_ = {};
  std::deque<Machine> machines_;
  uint64_t last_node_ = 0;
  int64_t now_ = kStart;
  // Of this round, in the same order.
  std::vector<VerifierCandidate> candidates_;
  std::vector<std::pair<Machine*, PopulationKey*>> verifiers_;
  PopulationResult result_;
};

}  // namespace

PopulationResult SimulatePopulation(const PopulationScenario& scenario,
                                    const IncentiveRules& rules) {
  return Population(scenario, rules).Run();
}

}  // namespace efedllm
