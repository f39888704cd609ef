#include "coordinator/speculator.h"

#include <algorithm>
#include <string>
#include <utility>

#include "prometheus/family.h"
#include "spdlog/spdlog.h"

namespace efedllm {
namespace {

constexpr size_t kGuessedPrompt = 512;  // tokens of it

// Nothing is said behind a token that ends the text.
void CutBehindEnd(const Sequence& sequence, std::vector<int32_t>& drafts) {
  const auto end = std::find_if(drafts.begin(), drafts.end(),
                                [&](int32_t token) { return sequence.EndsAt(token); });
  if (end != drafts.end()) drafts.erase(end + 1, drafts.end());
}

// Reads the prompt as if it had been guessed too: a text that repeats itself goes on so.
std::shared_ptr<Drafting> BeginDrafting(absl::Span<const int32_t> tokens) {
  auto drafting = std::make_shared<Drafting>();
  const size_t read = tokens.size() - std::min(tokens.size(), kGuessedPrompt);
  drafting->lookup.Append(tokens.first(read));
  for (const int32_t token : tokens.subspan(read)) {
    const NgramLookup::Match match = drafting->lookup.Find();
    if (match.length > 0) {
      const bool right = drafting->lookup.Following(match, 1)[0] == token;
      drafting->rules.Observe(KindOfMatch(match.length), 1, right ? 1 : 0);
    }
    drafting->lookup.Append(token);
  }
  drafting->rules.TakeAsHint();
  return drafting;
}

}  // namespace

Speculator::Counters Speculator::MakeCounters(prometheus::Registry& registry, const char* source) {
  const auto counter = [&](const char* name, const char* help) -> prometheus::Counter& {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(
        {{"source", source}});
  };
  return {counter("efedllm_speculation_proposed_tokens_total", "Guessed tokens that were verified"),
          counter("efedllm_speculation_accepted_tokens_total", "Of these, that were right")};
}

Speculator::Speculator(DraftModel* model, prometheus::Registry& registry)
    : model_(model),
      ngram_(MakeCounters(registry, "ngram")),
      draft_(MakeCounters(registry, "draft")) {}

DraftChoice Speculator::Choose(Sequence& sequence, const StepCost& cost) {
  if (sequence.drafting == nullptr) sequence.drafting = BeginDrafting(sequence.tokens());
  Drafting& drafting = *sequence.drafting;
  drafting.lookup.Append(sequence.tokens().subspan(drafting.lookup.size()));
  const NgramLookup::Match match = drafting.lookup.Find();
  std::vector<DraftOffer> offers;
  if (match.length > 0) {
    offers.push_back({KindOfMatch(match.length), sequence.draft_room(), 0});
  }
  if (model_ != nullptr) {
    offers.push_back({DraftKind::kModel, sequence.draft_room(), model_->seconds_per_token()});
  }
  const DraftChoice choice = drafting.rules.Choose(offers, cost);
  drafting.kind = choice.kind;
  if (choice.tokens > 0 && choice.kind != DraftKind::kModel) {
    std::vector<int32_t> drafts = drafting.lookup.Following(match, choice.tokens);
    CutBehindEnd(sequence, drafts);
    sequence.SetDrafts(std::move(drafts));
  }
  return choice;
}

void Speculator::Draft(absl::Span<Sequence* const> decodes, StepCost cost) {
  std::vector<DraftModel::Request> requests;
  std::vector<Sequence*> drafted;
  for (Sequence* sequence : decodes) {
    if (sequence->draft_room() == 0) continue;
    sequence->SetDrafts({});
    const DraftChoice choice = Choose(*sequence, cost);
    if (choice.tokens == 0) continue;
    cost.rows += choice.tokens;
    cost.room -= choice.tokens;
    cost.tokens += choice.expected_right;
    if (choice.kind != DraftKind::kModel) continue;
    cost.draft_time = std::max(cost.draft_time, choice.tokens * model_->seconds_per_token());
    Drafting& drafting = *sequence->drafting;
    if (drafting.session == nullptr) drafting.session = model_->Begin();
    requests.push_back({drafting.session.get(),
                        sequence->tokens(),
                        sequence->sampler(),
                        choice.tokens,
                        [sequence](int32_t token) { return sequence->EndsAt(token); },
                        {}});
    drafted.push_back(sequence);
  }
  if (!requests.empty()) DraftByModel(absl::MakeSpan(requests), drafted);
}

void Speculator::DraftByModel(absl::Span<DraftModel::Request> requests,
                              absl::Span<Sequence* const> drafted) {
  const absl::Status status = model_->Draft(requests);
  if (!status.ok()) {
    spdlog::error("the draft model failed and is not used any more: {}", status.ToString());
    model_ = nullptr;
    return;
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    drafted[i]->SetDrafts(std::move(requests[i].drafts));
  }
}

void Speculator::Observe(Sequence& sequence) {
  const auto verification = sequence.TakeVerification();
  if (!verification.has_value()) return;
  const DraftKind kind = sequence.drafting->kind;
  sequence.drafting->rules.Observe(kind, verification->proposed, verification->accepted);
  Counters& counters = kind == DraftKind::kModel ? draft_ : ngram_;
  counters.proposed.Increment(verification->proposed);
  counters.accepted.Increment(verification->accepted);
}

}  // namespace efedllm
