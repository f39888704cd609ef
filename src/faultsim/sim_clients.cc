#include "faultsim/sim_clients.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace efedllm::faultsim {
namespace {

constexpr char kTokens[] = "tokens are those of an undisturbed run";
constexpr char kStatus[] = "requests fail only as they may";

}  // namespace

SimClients::SimClients(World& world, SimCoordinator& coordinator, size_t clients)
    : world_(world), coordinator_(coordinator), clients_(clients) {
  for (size_t i = 0; i < clients; ++i) clients_[i].index = i;
}

void SimClients::Start() {
  for (Client& client : clients_) Rest(client);
}

bool SimClients::idle() const {
  return std::none_of(clients_.begin(), clients_.end(), [](const Client& c) { return c.asking; });
}

std::string SimClients::Waiting() const {
  std::string all;
  for (const Client& client : clients_) {
    if (!client.asking) continue;
    absl::StrAppend(&all, all.empty() ? "" : ", ", "client ", client.index, " for question ",
                    client.question, " after ", client.tokens.size(), " tokens",
                    client.generation == nullptr ? " (not accepted)" : "");
  }
  return all;
}

// Some time passes until the next question.
void SimClients::Rest(Client& client) {
  client.asking = false;
  client.generation = nullptr;
  const uint64_t attempt = ++client.attempt;
  const absl::Duration pause =
      absl::Microseconds(1000 + static_cast<int64_t>(world_.random.Below(60'000)));
  world_.loop.After(pause, nullptr, [this, &client, attempt] {
    if (client.attempt == attempt && !finishing_) Ask(client);
  });
}

void SimClients::Ask(Client& client) {
  Random& random = world_.random;
  client.asking = true;
  client.question = static_cast<size_t>(random.Below(world_.model.questions()));
  client.priority = random.Below(4) == 0 ? static_cast<int>(random.Below(7)) - 3 : 0;
  client.in_a_hurry = random.Below(8) == 0;
  Submit(client);
  if (random.Below(10) != 0) return;
  const uint64_t attempt = client.attempt;
  const absl::Duration patience = absl::Microseconds(static_cast<int64_t>(random.Below(400'000)));
  world_.loop.After(patience, nullptr, [this, &client, attempt] {
    if (client.attempt != attempt || client.generation == nullptr || finishing_) return;
    world_.Say(absl::StrCat("client ", client.index), "gives up");
    client.generation->Cancel();
    Rest(client);
  });
}

void SimClients::Submit(Client& client) {
  client.tokens.clear();
  client.generation = nullptr;
  const uint64_t attempt = client.attempt;
  if (!coordinator_.alive()) return AskAgain(client, absl::Milliseconds(100));
  world_.loop.After(absl::Microseconds(200), &world_.coordinator, [this, &client, attempt] {
    if (client.attempt != attempt || client.generation != nullptr) return;
    GenerationInput input = world_.model.Question(client.question);
    input.priority = client.priority;
    client.deadline =
        client.in_a_hurry ? coordinator_.Now() + absl::Seconds(3) : absl::InfiniteFuture();
    input.deadline = client.deadline;
    auto generation = coordinator_.Submit(std::move(input));
    if (!generation.ok()) return TakeStatus(client, generation.status());
    client.generation = *std::move(generation);
  });
  // Nobody took it: the coordinator died, or hangs.
  world_.loop.After(absl::Seconds(1), nullptr, [this, &client, attempt] {
    if (client.attempt == attempt && client.generation == nullptr) {
      AskAgain(client, absl::ZeroDuration());
    }
  });
}

void SimClients::AskAgain(Client& client, absl::Duration wait) {
  client.generation = nullptr;
  const uint64_t attempt = ++client.attempt;
  wait += absl::Microseconds(static_cast<int64_t>(world_.random.Below(50'000)));
  world_.loop.After(wait, nullptr, [this, &client, attempt] {
    if (client.attempt == attempt) Submit(client);
  });
}

void SimClients::OnCoordinatorCrash() {
  for (Client& client : clients_) {
    if (client.asking && client.generation != nullptr) AskAgain(client, absl::Milliseconds(50));
  }
}

void SimClients::Read() {
  for (Client& client : clients_) {
    if (client.generation != nullptr) Read(client);
  }
}

void SimClients::Read(Client& client) {
  const uint64_t attempt = client.attempt;
  while (client.attempt == attempt && client.generation != nullptr) {
    const std::optional<GenerationEvent> event = client.generation->Next(absl::ZeroDuration());
    if (!event) return;
    Take(client, *event);
  }
}

void SimClients::Take(Client& client, const GenerationEvent& event) {
  if (!event.status.ok()) return TakeStatus(client, event.status);
  const std::vector<int32_t>& answer = world_.model.Answer(client.question);
  const Epoch epoch = coordinator_.epoch();
  const bool another = !client.tokens.empty() && epoch != client.epoch;
  client.epoch = epoch;
  if (event.token && another && world_.Is(Mutation::kTokenSaidTwice)) {
    client.tokens.push_back(client.tokens.back());
  }
  if (event.token) {
    const size_t at = client.tokens.size();
    const int32_t token = event.token->token;
    if (at >= answer.size() || answer[at] != token) {
      world_.Violation(kTokens, "client ", client.index, ", question ", client.question, ": token ",
                       at, " is ", token, " and should be ",
                       at < answer.size() ? absl::StrCat(answer[at]) : "none");
    }
    client.tokens.push_back(token);
    ++tokens_;
  }
  if (!event.finish) return;
  if (client.tokens.size() != answer.size()) {
    world_.Violation(kTokens, "client ", client.index, ", question ", client.question,
                     ": ends after ", client.tokens.size(), " of ", answer.size(), " tokens");
  }
  ++answered_;
  world_.Say(absl::StrCat("client ", client.index), "has its answer to question ", client.question);
  Rest(client);
}

void SimClients::TakeStatus(Client& client, const absl::Status& status) {
  world_.Say(absl::StrCat("client ", client.index), "is refused: ", status.ToString());
  ++refused_;
  if (absl::IsUnavailable(status) || absl::IsResourceExhausted(status)) {
    return AskAgain(client, absl::Milliseconds(200));
  }
  const bool late = absl::IsDeadlineExceeded(status) && client.deadline <= coordinator_.Now();
  if (!late) {
    world_.Violation(kStatus, "client ", client.index, ", question ", client.question, ": ",
                     status.ToString());
  }
  Rest(client);
}

}  // namespace efedllm::faultsim
