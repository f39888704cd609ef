// KV on its way from one simulated worker to another, as StageKeeper and net/hop_kv.h do it. What
// says the stream's epoch goes first; an empty message ends it, and the receiver's answer is how it
// closes the stream.
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "faultsim/sim_worker.h"

namespace efedllm::faultsim {
namespace {

constexpr absl::Duration kFrameTime = absl::Microseconds(100);

}  // namespace

struct SimWorker::KvTransfer {
  HandOver hand_over;
  Network::ConnectionPtr connection;
  std::vector<KvExtent> extents;
  size_t extent = 0;   // that is sent now
  uint32_t first = 0;  // its next position
  HandedOver handed_over;
  bool over = false;
};

void SimWorker::OnHandOver(const HandOver& hand_over) {
  auto transfer = std::make_shared<KvTransfer>();
  transfer->hand_over = hand_over;
  transfer->handed_over.epoch = hand_over.epoch;
  const auto& running = life_->slots.running();
  Process* to = world_.Find(hand_over.to);
  if (running == nullptr || running->epoch() != hand_over.epoch || to == nullptr) {
    return EndTransfer(*transfer, absl::NotFoundError("no stage of that epoch runs here"));
  }
  world_.Say(process_.name, "hands the KV of epoch ", hand_over.epoch.v, " over to ", to->name);
  life_->slots.Halt(*running);
  transfer->extents = running->executor()->extents();
  transfer->connection = world_.network.Dial(process_, *to, ConnectionKind::kKv);
  transfer->connection->set_handler(
      Connection::kDialler,
      {nullptr, [this, transfer](const absl::Status& answer) { EndTransfer(*transfer, answer); }});
  transfer->connection->Send(Connection::kDialler, absl::StrCat(hand_over.next_epoch.v));
  if (process_.up) SendKv(transfer);
}

void SimWorker::SendKv(const std::shared_ptr<KvTransfer>& transfer) {
  if (transfer->over) return;
  std::string next;  // empty: all were sent
  if (transfer->extent < transfer->extents.size()) {
    const KvExtent& extent = transfer->extents[transfer->extent];
    const auto frame = life_->slots.Export(transfer->hand_over.epoch,
                                           transfer->hand_over.next_epoch, extent, transfer->first);
    if (!frame.ok()) {
      transfer->connection->Close(Connection::kDialler, frame.status());
      return EndTransfer(*transfer, frame.status());
    }
    next = BytesOf(*frame);
    transfer->handed_over.bytes += next.size();
    if (transfer->first == extent.length) {
      ++transfer->extent;
      transfer->first = 0;
    }
  }
  const bool last = next.empty();
  transfer->connection->Send(Connection::kDialler, std::move(next));
  if (!process_.up || last) return;
  world_.loop.After(kFrameTime, &process_, [this, transfer] { SendKv(transfer); });
}

void SimWorker::EndTransfer(KvTransfer& transfer, const absl::Status& answer) {
  if (std::exchange(transfer.over, true)) return;
  transfer.handed_over.message = std::string(answer.message());
  v1::WorkerMessage message;
  *message.mutable_handed_over() = ToWire(transfer.handed_over);
  Send(message);
}

void SimWorker::OnKv(const Network::ConnectionPtr& connection, std::optional<Epoch>& next_epoch,
                     const std::string& bytes) {
  const absl::StatusOr<bool> whole = TakeKv(next_epoch, bytes);
  if (!whole.ok() || *whole) connection->Close(Connection::kListener, whole.status());
  if (!whole.ok()) world_.Say(process_.name, "takes no KV: ", whole.status().message());
  if (whole.ok() && *whole && process_.up) ReportReady(*next_epoch, /*kept=*/true);
}

// True: that was all, and it is here.
absl::StatusOr<bool> SimWorker::TakeKv(std::optional<Epoch>& next_epoch, const std::string& bytes) {
  if (!next_epoch) {
    if (!absl::SimpleAtoi(bytes, &next_epoch.emplace().v)) {
      return absl::InvalidArgumentError("a stream of no epoch");
    }
    return false;
  }
  if (!bytes.empty()) {
    RETURN_IF_ERROR(life_->slots.Import(BufferOf(bytes)));
    return false;
  }
  RETURN_IF_ERROR(life_->slots.FinishImport(*next_epoch));
  return true;
}

}  // namespace efedllm::faultsim
